import pytest
import torch
from torch import nn

from bench.optim import build_optimizer, learning_rate, set_learning_rate
from bench.optimizer_spec import SGD, Adam, AdamW, Constant, Cosine, Poly, Step, Warmup
from bench.recipe import Recipe


def rates(recipe: Recipe, num_steps: int = 12, per_epoch: int = 4) -> list[float]:
    return [learning_rate(recipe, step, num_steps, per_epoch) for step in range(num_steps)]


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({"epochs": 3, "optimizer": {"name": "sgd", "lr": 0.1}} | changes)


def test_constant() -> None:
    assert rates(recipe(schedule=Constant())) == [0.1] * 12


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly_is_torchs(power: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=12, power=power)
    for ours in rates(recipe(schedule=Poly(power=power))):
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_cosine_is_torchs_per_epoch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3, eta_min=0.01)
    ours = rates(recipe(schedule=Cosine(eta_min=0.01)))
    for epoch in range(3):
        expected = optimizer.param_groups[0]["lr"]
        assert ours[4 * epoch : 4 * epoch + 4] == pytest.approx([expected] * 4)
        optimizer.step()
        reference.step()


def test_step() -> None:
    found = rates(recipe(schedule=Step(every=2, gamma=0.1)))
    assert found == pytest.approx([0.1] * 8 + [0.01] * 4)


def test_warmup_multiplies() -> None:
    found = rates(recipe(schedule=Constant(), warmup=Warmup(steps=4, factor=0.2)))
    assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (Adam(weight_decay=0.1), torch.optim.Adam),
        (AdamW(weight_decay=0.1), torch.optim.AdamW),
        (SGD(weight_decay=0.1), torch.optim.SGD),
    ],
)
def test_optimizers(spec: object, kind: type) -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(recipe(optimizer=spec), model)
    assert type(optimizer) is kind
    [group] = optimizer.param_groups
    assert group["params"] == [model.weight]
    assert group["weight_decay"] == 0.1
    set_learning_rate(optimizer, 0.5)
    assert group["lr"] == 0.5
