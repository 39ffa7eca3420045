from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UserError
from bench.models.probing import without_values
from bench.models.segmenter import Segmenter, build_model
from bench.suite.case import canonical
from bench.suite.model import ModelSpec
from bench.suite.optimizer import SGD, Adam, AdamW, Constant, Cosine, Poly, Step, Warmup
from bench.suite.recipe import Recipe
from bench.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from custom_models import ARCHITECTURES

UNET = {"arch": "smp/unet", "encoder": "resnet18"}
SPECS = [{"arch": f"custom/{name}"} for name in ARCHITECTURES] + [
    UNET,
    {"arch": "smp/segformer", "encoder": "mit_b0"},
    {"arch": "smp/unet", "encoder": "tu-convnext_atto"},
    {"arch": "timm/vit_tiny_patch16_224"},
    {"arch": "torchvision/lraspp_mobilenet_v3_large"},
]


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


class Small(nn.Module):
    """An encoder and a head, both with a normalisation layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4))
        self.head = nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("amsgrad", [True, False])
def test_amsgrad_reaches_torch(name: str, amsgrad: bool) -> None:
    optimizer = build_optimizer(recipe(optimizer={"name": name, "amsgrad": amsgrad}), Small())
    assert [group["amsgrad"] for group in optimizer.param_groups] == [amsgrad]


def test_what_was_added_changes_no_hash_at_its_default() -> None:
    added = {"decay": "all", "encoder_lr": 1, "freeze_encoder": False}
    assert not added.keys() & canonical(recipe(**added)).keys()
    assert canonical(recipe(decay="weights"))["decay"] == "weights"
    assert canonical(recipe(encoder_lr=0.1))["encoder_lr"] == 0.1
    assert canonical(recipe(freeze_encoder=True))["freeze_encoder"] is True
    for spec in (Adam, AdamW):
        assert "amsgrad" not in canonical(spec())
        assert canonical(spec(amsgrad=True))["amsgrad"] is True


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_default_recipe_has_one_group_in_the_models_order(name: str) -> None:
    net = Small()
    [group] = build_optimizer(recipe(optimizer=name), net).param_groups
    assert list(map(id, group["params"])) == list(map(id, net.parameters()))
    assert group["lr_factor"] == 1


@pytest.mark.parametrize("spec", [Adam(), AdamW(), SGD()], ids=lambda spec: spec.name)
def test_a_default_recipe_trains_as_torch_does(spec: Adam | AdamW | SGD) -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    settings = spec.model_dump(exclude={"name"})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[spec.name]
    pairs = [
        (ours, build_optimizer(recipe(optimizer=spec), ours)),
        (theirs, kind(theirs.parameters(), **settings)),
    ]
    for step in range(5):
        for net, optimizer in pairs:
            optimizer.zero_grad()
            net(torch.linspace(-1, step, 12).view(4, 3)).square().sum().backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_decay_of_weights_alone() -> None:
    net = Small()
    spec = AdamW(weight_decay=0.1)
    groups = build_optimizer(recipe(optimizer=spec, decay="weights"), net).param_groups
    found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    assert {name: found[id(p)] for name, p in net.named_parameters()} == {
        "encoder.0.weight": 0.1,
        "encoder.0.bias": 0,
        "encoder.1.weight": 0,
        "encoder.1.bias": 0,
        "encoder.2.weight": 0,
        "head.0.weight": 0,
        "head.0.bias": 0,
        "head.1.weight": 0.1,
        "head.1.bias": 0,
    }


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_what_has_no_decay_stays_without_a_gradient(name: str) -> None:
    net = Small()
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    spec = {"name": name, "weight_decay": 0.1}
    optimizer = build_optimizer(recipe(optimizer=spec, decay="weights"), net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = [key for key, p in net.named_parameters() if not torch.equal(p, before[key])]
    assert moved == ["encoder.0.weight", "head.1.weight"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(spec.values()))
def test_norms_and_biases_of_every_network_are_without_decay(spec: dict[str, str]) -> None:
    def decays(net: nn.Module, _: torch.device) -> None:
        changed = recipe(optimizer=SGD(weight_decay=0.1), decay="weights")
        groups = build_optimizer(changed, net).param_groups
        found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        trainable = [p for p in net.parameters() if p.requires_grad]
        assert sum(len(group["params"]) for group in groups) == len(trainable)
        for module in net.modules():
            norm = isinstance(module, nn.LayerNorm | nn.GroupNorm | _BatchNorm)
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad and (norm or name == "bias"):
                    assert found[id(parameter)] == 0
                elif parameter.requires_grad and isinstance(module, nn.Conv2d | nn.Linear):
                    assert found[id(parameter)] == 0.1

    without_values(ModelSpec.model_validate(spec), 3, decays)


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_the_encoder_has_its_own_learning_rate(decay: str) -> None:
    net = Small()
    changed = recipe(schedule="poly", encoder_lr=0.1, decay=decay, warmup={"steps": 3})
    optimizer = build_optimizer(changed, net)
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(map(id, net.parameters()))
    encoder = set(map(id, net.encoder.parameters()))
    for lr in rates(changed):
        set_learning_rate(optimizer, lr)
        now = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        for parameter, given in now.items():
            assert given == pytest.approx(0.1 * lr if parameter in encoder else lr)


def test_an_encoder_learns_a_tenth() -> None:
    net = Small()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    changed = recipe(encoder_lr=0.1, optimizer={"name": "sgd", "momentum": 0})
    optimizer = build_optimizer(changed, net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    set_learning_rate(optimizer, 0.5)
    optimizer.step()
    for name, p in net.named_parameters():
        step = 0.05 if name.startswith("encoder.") else 0.5
        torch.testing.assert_close(before[name] - p, torch.full_like(p, step))


def test_groups_survive_a_checkpoint() -> None:
    changed = recipe(encoder_lr=0.1, decay="weights", optimizer=AdamW(weight_decay=0.1))
    net = Small()
    saved = build_optimizer(changed, net)
    set_learning_rate(saved, 0.5)
    loaded = build_optimizer(changed, net)
    loaded.load_state_dict(saved.state_dict())
    set_learning_rate(loaded, 0.25)
    rows = [(group["lr"], group["weight_decay"]) for group in loaded.param_groups]
    assert sorted(rows) == [(0.025, 0), (0.025, 0.1), (0.25, 0), (0.25, 0.1)]


def test_encoder_lr_needs_an_encoder() -> None:
    with pytest.raises(UserError, match=r"^encoder_lr: Conv2d has no part called encoder; "):
        build_optimizer(recipe(encoder_lr=0.1), nn.Conv2d(3, 2, 1))
    build_optimizer(recipe(encoder_lr=1), nn.Conv2d(3, 2, 1))


def test_freeze_encoder_needs_an_encoder() -> None:
    model, _ = build_model(ModelSpec.model_validate(UNET), 2)
    plain = Segmenter(nn.Conv2d(3, 2, 1), None, model.geometry)
    with pytest.raises(UserError, match=r"^freeze_encoder: Conv2d has no part called encoder; "):
        plain.freeze_encoder()


def test_a_frozen_encoder_has_no_learning_rate() -> None:
    with pytest.raises(ValidationError, match=r"a frozen encoder has no encoder_lr"):
        recipe(freeze_encoder=True, encoder_lr=0.1)
    assert recipe(freeze_encoder=True, encoder_lr=1).freeze_encoder


def train_step(model: Segmenter, changed: Recipe) -> tuple[set[str], set[str]]:
    """Return the names in the state dict that a step changed, and all names."""
    before = {key: value.clone() for key, value in model.net.state_dict().items()}
    optimizer = build_optimizer(changed, model.net)
    model.train()
    image = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    logits: Any = model(image.to(torch.uint8))
    logits.square().mean().backward()
    optimizer.step()
    after = model.net.state_dict()
    return {key for key in before if not torch.equal(before[key], after[key])}, set(before)


def test_a_frozen_encoder_stays_as_it_is() -> None:
    # With weight decay, which changes even parameters without a gradient.
    changed = recipe(optimizer={"name": "adamw", "weight_decay": 0.1})
    torch.manual_seed(0)
    model, _ = build_model(ModelSpec.model_validate(UNET), 2)
    model.freeze_encoder()
    moved, names = train_step(model, changed)
    of_encoder = {name for name in names if name.startswith("encoder.")}
    assert any(name.endswith("running_mean") for name in of_encoder)
    assert moved == names - of_encoder
    optimizer = build_optimizer(changed, model.net)
    trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert trained == sum(not name.startswith("enc") for name, _ in model.net.named_parameters())
    assert not model.net.encoder.training
    assert model.net.decoder.training
    model.eval().train()
    assert not model.net.encoder.training

    torch.manual_seed(0)
    model, _ = build_model(ModelSpec.model_validate(UNET), 2)
    moved, names = train_step(model, changed)
    assert moved == names


def test_freezing_changes_no_name_in_the_state() -> None:
    model, _ = build_model(ModelSpec.model_validate(UNET), 2)
    before = list(model.state_dict())
    model.freeze_encoder()
    assert list(model.state_dict()) == before
