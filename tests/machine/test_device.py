import random

import numpy as np
import pytest
import torch

from bench.errors import UserError
from bench.machine.device import pick_device, pick_precision
from bench.machine.random_state import random_states, seed_everything, set_random_states

CPU = torch.device("cpu")


def test_random_states_go_on_where_they_were(tmp_path) -> None:
    seed_everything(3)
    torch.rand(5), np.random.rand(5), random.random()
    torch.save(random_states(CPU), tmp_path / "states.pt")
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    seed_everything(99)
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True), CPU)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match="No device 'gpu'; this machine has cpu"):
        pick_device("gpu")
    with pytest.raises(UserError, match="No device 'cuda:99'"):
        pick_device("cuda:99")


def test_auto_fails_where_a_gpu_is_visible_but_unusable(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("bench.machine.device._has_nvidia_gpu", lambda: True)
    with pytest.raises(UserError, match="visible, but torch .* cannot use it"):
        pick_device("auto")


def test_precisions_of_the_cpu() -> None:
    assert pick_precision("auto", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"
    for name in ("tf32", "fp16"):
        with pytest.raises(UserError, match=f"Precision '{name}' is not supported on"):
            pick_precision(name, CPU)
