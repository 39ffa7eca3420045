"""The loop against the same loop written by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.evaluation.setup import Setup
from bench.machine.clock import Clock
from bench.machine.numerics import Numerics
from bench.models.geometry import Geometry
from bench.suite.loss import CrossEntropy
from bench.suite.recipe import Recipe
from bench.training.loop import TrainState, train_epoch
from bench.training.losses import build_loss

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 1))


class OnFloats(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.geometry = Geometry(1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image.float() / 255)


def batches(num: int = 3) -> list[tuple]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for i in range(num):
        images = torch.randint(0, 256, (8, 3, 6, 6), generator=generator, dtype=torch.uint8)
        targets = torch.randint(0, 4, (8, 6, 6), generator=generator, dtype=torch.uint8)
        targets[: i + 1, :4] = 255  # uneven void
        made.append((images, targets, [f"{i}-{j}" for j in range(8)]))
    return made


def train(
    num_steps: int = 3,
    data: list | None = None,
    build: Callable[[], nn.Module] = OnFloats,
    **changes: object,
) -> TrainState:
    recipe = Recipe.model_validate(
        {
            "epochs": 1,
            "batch_size": 8,
            "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9},
            "schedule": "poly",
        }
        | changes
    )
    model = build()
    state = TrainState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.5, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        num_steps=num_steps,
        steps_per_epoch=3,
        losses=torch.zeros(3),
        counts=torch.zeros(4, 4, dtype=torch.int64),
        clock=Clock(),
    )
    for group in state.optimizer.param_groups:
        group["lr_factor"] = 1.0
    train_epoch(state, data or batches(), recipe, setup(recipe))
    return state


def setup(recipe: Recipe, beat: Callable[[], None] = lambda: None) -> Setup:
    numerics = Numerics("cpu", micro_batch=recipe.micro_batch, threads=1)
    return Setup(CPU, numerics, 4, build_loss(CrossEntropy(), 4, CPU, 0.4), beat)


def by_hand(clip: float | None = None) -> tuple[nn.Module, float]:
    model = OnFloats()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=3, power=0.9)
    total = 0.0
    for images, targets, _ in batches():
        loss = F.cross_entropy(model(images), targets.long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        total += loss.item()
    return model, total


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_against_the_textbook() -> None:
    state = train()
    model, total = by_hand()
    assert_equal(state.model, model)
    assert state.losses.sum().item() == pytest.approx(total, rel=1e-5)
    seen = sum(int((target[:, ::4, ::4] != 255).sum()) for _, target, _ in batches())
    assert state.counts[0].sum() == seen
    assert state.step == 3
    assert state.clock.seconds["training"] > 0


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_changes_nothing(accumulate: int) -> None:
    assert_equal(train(accumulate=accumulate).model, by_hand()[0])


def test_clipping() -> None:
    assert_equal(train(clip_grad=0.01).model, by_hand(0.01)[0])


def test_training_ends_at_the_last_step() -> None:
    assert train(num_steps=2, epochs=None, steps=2).step == 2


def test_what_the_beat_raises_leaves_the_state_whole() -> None:
    recipe = Recipe(epochs=1, batch_size=8)
    model = OnFloats()
    state = TrainState(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        torch.amp.GradScaler("cpu", enabled=False),
        num_steps=3,
        steps_per_epoch=3,
        losses=torch.zeros(3),
        counts=torch.zeros(4, 4, dtype=torch.int64),
        clock=Clock(),
    )
    state.optimizer.param_groups[0]["lr_factor"] = 1.0

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_epoch(state, batches(), recipe, setup(recipe, stop))
    assert state.step == 1
    assert state.clock.seconds["training"] > 0


class CoarseHeads(OnFloats):
    """Returns half-size logits, also from an auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Conv2d(3, 4, 1)
        self.geometry = Geometry(2, 2, stride=2)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = F.avg_pool2d(image.float() / 255, 2)
        return {"out": self.net(x), "aux": self.aux(x)}


@pytest.mark.parametrize("accumulate", [1, 4])
def test_coarse_logits_and_auxiliary_heads(accumulate: int) -> None:
    torch.manual_seed(0)
    state = train(build=CoarseHeads, accumulate=accumulate)
    torch.manual_seed(0)
    model = CoarseHeads()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=3, power=0.9)
    for images, targets, _ in batches():
        heads, target = model(images), targets[:, 1::2, 1::2].long()
        losses = [F.cross_entropy(head, target, ignore_index=255) for head in heads.values()]
        optimizer.zero_grad()
        (losses[0] + 0.4 * losses[1]).backward()
        optimizer.step()
        schedule.step()
    assert_equal(state.model, model)
