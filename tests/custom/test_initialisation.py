import importlib
import math
from typing import Any

import pytest
import torch
from torch import nn

from custom_models.initialisation import CONVOLUTIONS, INITS, default, kaiming, xavier

LAYERS = {
    "conv": lambda: nn.Conv2d(64, 128, 3),
    "deconv": lambda: nn.ConvTranspose2d(128, 64, 3),
    "linear": lambda: nn.Linear(512, 256),
}
FAN_IN = {"conv": 64 * 9, "deconv": 128 * 9, "linear": 512}
FAN_OUT = {"conv": 128 * 9, "deconv": 64 * 9, "linear": 256}


@pytest.fixture(params=LAYERS)
def kind(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(0)
    return str(request.param)


def test_xavier(kind: str) -> None:
    layer = LAYERS[kind]()
    xavier(nn.Sequential(layer))
    bound = math.sqrt(6 / (FAN_IN[kind] + FAN_OUT[kind]))
    assert 0.999 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not layer.bias.any()
    torch.manual_seed(3)
    xavier(layer)
    expected = torch.empty_like(layer.weight)
    torch.manual_seed(3)
    nn.init.xavier_uniform_(expected)
    assert torch.equal(layer.weight, expected)


def test_kaiming(kind: str) -> None:
    layer = LAYERS[kind]()
    kaiming(nn.Sequential(layer))
    std = math.sqrt(2 / FAN_IN[kind])
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert layer.weight.mean().abs() < 0.02 * std
    assert layer.weight.abs().max() > 3 * std  # a normal distribution is unbounded
    assert not layer.bias.any()


def test_default_is_torch_s_own(kind: str) -> None:
    layer = LAYERS[kind]()
    nn.init.constant_(layer.weight, 5)
    nn.init.constant_(layer.bias, 5)
    default(nn.Sequential(layer))
    fan = FAN_OUT[kind] if kind == "deconv" else FAN_IN[kind]  # as torch counts
    for parameter in (layer.weight, layer.bias):
        assert 0.9 / math.sqrt(fan) < parameter.abs().max() <= 1 / math.sqrt(fan)
    torch.manual_seed(5)
    default(layer)
    torch.manual_seed(5)
    fresh = LAYERS[kind]()
    assert torch.equal(layer.weight, fresh.weight)
    assert torch.equal(layer.bias, fresh.bias)


@pytest.mark.parametrize("name", INITS)
def test_what_is_frozen_stays(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, bias=False))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net[0].requires_grad_(False)
    INITS[name](net)
    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"2.weight"}
    assert set(INITS) == {"xavier", "kaiming", "default"}


def ratios(part: nn.Module) -> list[dict[str, float]]:
    """Compare the spread of each large layer's weights with that of the three schemes."""
    found = []
    for layer in part.modules():
        if not isinstance(layer, CONVOLUTIONS) or layer.weight.numel() < 4000:
            continue
        weight = layer.weight
        area = weight[0, 0].numel() if weight.dim() == 4 else 1
        inputs, outputs = layer.weight.shape[1] * area, layer.weight.shape[0] * area
        swapped = isinstance(layer, nn.ConvTranspose2d)
        std = weight.std().item()
        found.append(
            {
                "xavier": std / math.sqrt(2 / (inputs + outputs)),
                "kaiming": std / math.sqrt(2 / (outputs if swapped else inputs)),
                "default": std / math.sqrt(1 / 3 / inputs),
            }
        )
    return found


@pytest.mark.parametrize(
    ("name", "options", "part", "init"),
    [
        ("fcn", {}, "", "xavier"),
        ("fcn8s", {}, "encoder", "kaiming"),
        ("erfnet", {}, "", "default"),
        ("darrennet", {}, "", "kaiming"),
        ("enet", {}, "", "default"),
        ("r2unet", {}, "", "default"),
        ("rrcnn_fcn", {}, "", "xavier"),
        ("unet", {}, "", "kaiming"),
        ("unet_valid", {}, "", "kaiming"),
        ("simplified_unet", {}, "", "xavier"),
        ("resnet_fcn", {"encoder": "resnet34"}, "decoder", "xavier"),
        ("resnet_fcn", {"encoder": "resnet50"}, "decoder", "xavier"),
        ("pspnet", {}, "head", "default"),
        ("deeplabv3_deconv", {}, "net.classifier", "xavier"),
    ],
)
def test_how_each_network_begins(name: str, options: dict[str, Any], part: str, init: str) -> None:
    torch.manual_seed(0)
    net = importlib.import_module(f"custom_models.{name}").build(21, **options)
    begun = net.get_submodule(part)
    layers = ratios(begun)
    assert layers
    for layer in layers:
        assert layer[init] == pytest.approx(1, abs=0.05)
    others = [way for way in INITS if way != init]  # at least one layer differs from each
    assert all(max(abs(layer[way] - 1) for layer in layers) > 0.1 for way in others)
    biases = [m.bias for m in begun.modules() if isinstance(m, CONVOLUTIONS) and m.bias is not None]
    assert all(bool(bias.any()) == (init == "default") for bias in biases)
