"""Several processes train as one does, up to rounding."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from together import alone, steps, together
from torch import nn

from bench.evaluation.inference import _Part, _whole
from bench.loading.loader import EpochSampler
from bench.machine.world import ALONE, World
from bench.models.batch_norm import synchronise
from bench.training.distributed import SharedStop, start_alike
from bench.training.gradients import Gradients

ENET = {"arch": "custom/enet"}
RESNET = {"arch": "smp/unet", "encoder": "resnet18"}
ACTIVATING = {"arch": "smp/unet", "encoder": "tu-mobilenetv3_small_050"}  # BatchNormAct2d


def assert_close(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    assert list(one["state"]) == list(other["state"])
    for name, value in one["state"].items():
        torch.testing.assert_close(
            other["state"][name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m
        )
    torch.testing.assert_close(other["losses"], one["losses"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{}, {"accumulate": 2, "clip_grad": 0.1}], ids=["whole", "accumulated"]
)
def test_ten_steps_without_batch_norm(settings: dict[str, Any]) -> None:
    args = None, 10, 16, {"optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}} | settings
    one, (first, second) = alone(*args), together(steps, *args)
    assert_close(one, first, 1e-6)
    assert torch.equal(one["counts"], first["counts"])
    assert one["counts"].sum() > 0
    assert not second["counts"].any()
    assert not second["losses"].any()
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name])


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        pytest.param(ENET, {"accumulate": 2}, id="enet, accumulated"),
        pytest.param(ACTIVATING, {"memory": "checkpoint"}, id="BatchNormAct2d, recomputed"),
        pytest.param(RESNET, {}, id="resnet18", marks=pytest.mark.slow),
    ],
)
def test_batch_norm_sees_the_images_of_all(spec: dict[str, Any], settings: dict[str, Any]) -> None:
    args = spec, 3, 64, {"optimizer": {"name": "sgd", "lr": 0.05}} | settings
    one, (first, second) = alone(*args), together(steps, *args)
    assert any("running_var" in name for name in one["state"])
    assert_close(one, first, 1e-5)
    assert torch.equal(one["counts"], first["counts"])
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name])


def test_without_synchronisation_it_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    args = ENET, 3, 32, {"optimizer": {"name": "sgd", "lr": 0.05}}
    first, _ = together(_unsynchronised, *args)
    with pytest.raises(AssertionError):
        assert_close(alone(*args), first, 1e-5)


def _unsynchronised(world: World, *args: Any) -> dict[str, Any]:
    import together as module

    module.synchronise = lambda net, world: None
    return steps(world, *args)


def test_a_batch_norm_stays_what_it_was() -> None:
    norm = nn.BatchNorm2d(3)
    synchronise(norm, World(0, 2))
    assert isinstance(norm, nn.BatchNorm2d)
    assert type(norm).__name__ == "BatchNorm2d"
    assert list(norm.state_dict()) == list(nn.BatchNorm2d(3).state_dict())
    assert torch.isfinite(norm.eval()(torch.ones(1, 3, 1, 1))).all()  # tells nobody anything
    plain = nn.BatchNorm2d(3)
    synchronise(plain, ALONE)
    assert type(plain) is nn.BatchNorm2d


def _one_value_per_channel(world: World) -> tuple[bool, str]:
    """Normalise one value per channel of each process, then of one alone."""
    norm = nn.BatchNorm2d(3)
    synchronise(norm, world)
    finite = bool(norm(torch.full((1, 3, 1, 1), float(world.rank))).isfinite().all())
    return finite, str(norm.running_mean)


def test_values_are_counted_over_all_processes() -> None:
    assert together(_one_value_per_channel) == [(True, "tensor([0.0500, 0.0500, 0.0500])")] * 2


def _begins(world: World) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(world.rank)
    model = nn.BatchNorm1d(4)
    nn.init.normal_(model.weight)
    start_alike(model, seed=0, world=world)
    return model.weight.detach(), torch.rand(3)


def test_all_begin_with_the_weights_of_the_first_and_draw_numbers_of_their_own() -> None:
    (weight, drawn), (other_weight, other_drawn) = together(_begins)
    assert torch.equal(weight, other_weight)
    assert not torch.equal(drawn, other_drawn)


def _partly_used(world: World) -> list[Any]:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), 1.0 + world.rank)
    if world.rank == 1:
        parameters[1].grad = torch.full((2,), 5.0)
    Gradients(world, parameters).add_up()
    return [p.grad if p.grad is None else p.grad.tolist() for p in parameters]


def test_gradients_that_one_process_lacks() -> None:
    assert together(_partly_used) == [[[3.0, 3.0], [5.0, 5.0], None]] * 2


def _stops(world: World) -> list[bool]:
    stop = SharedStop(world, lambda: world.rank == 0)
    seen = [stop.is_due()]
    with stop.in_training():
        seen.append(stop.is_due())
        stop.agree()
        seen.append(stop.is_due())
    return seen


def test_the_first_process_says_when_all_stop() -> None:
    assert together(_stops) == [[True, False, True], [False, False, True]]


@pytest.mark.parametrize(("size", "accumulate"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_each_image_of_a_batch_has_one_process(size: int, accumulate: int) -> None:
    whole = EpochSampler(35, 8, seed=0).batches(3)
    micro_batch = 8 // accumulate
    share = micro_batch // size
    for number, batch in enumerate(whole):
        passes: list[set[Any]] = [set() for _ in range(accumulate)]
        for rank in range(size):
            sampler = EpochSampler(35, 8, 0, World(rank, size).places(8, micro_batch))
            sampler.epoch = 3
            read = list(sampler)[number]
            assert len(read) == 8 // size
            for i in range(accumulate):
                passes[i] |= set(read[i * share : (i + 1) * share])
        for i in range(accumulate):
            assert passes[i] == set(batch[i * micro_batch : (i + 1) * micro_batch])


@pytest.mark.parametrize("num", [1, 2, 7])
def test_counts_come_back_in_the_order_of_the_images(num: int) -> None:
    parts = []
    for rank in range(3):
        mine = World(rank, 3).share(num)
        rows = np.array([[[index] * 2] * 4 for index in mine], np.uint32).reshape(-1, 4, 2)
        summed = torch.tensor([1.0 * len(mine)]) if mine else 0
        ids = [f"i{index}" for index in mine]
        parts.append(_Part(ids, rows, np.full((2, 2), len(mine)), summed, summed, len(mine)))
    whole = _whole(parts, start=0.0)
    assert whole.ids == tuple(f"i{index}" for index in range(num))
    assert whole.per_image[:, 0, 0].tolist() == list(range(num))
    assert whole.confusion[0, 0] == num
    assert whole.loss == 1.0
    assert Counter(whole.ids).most_common(1)[0][1] == 1
