import torch

from bench.machine.clock import reference_s


def test_it_takes_time_and_leaves_no_trace() -> None:
    before = torch.get_rng_state()
    assert reference_s(torch.device("cpu")) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
