"""R2U-Net and RRCNN-FCN against their recurrences written out by hand."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_models import r2unet, rrcnn_fcn

MODULES = [r2unet, rrcnn_fcn]


def randomised(net: nn.Module) -> nn.Module:
    """Set BatchNorm statistics other than 0 and 1."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias)
    return net.eval()


def step(unit: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compute f of a unit: its convolution, BatchNorm by the formula, ReLU."""
    norm = unit.norm
    mean, var, weight, bias = (
        t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )

    def f(x: Tensor) -> Tensor:
        y = F.conv2d(x, unit.conv.weight, unit.conv.bias, padding=1)
        return ((y - mean) / (var + norm.eps).sqrt() * weight + bias).clamp(min=0)

    return f


@pytest.mark.parametrize("module", MODULES)
def test_parameters_do_not_depend_on_t(module: ModuleType) -> None:
    shapes = []
    for t in (1, 2, 3):
        with torch.device("meta"):
            net = module.build(21, t=t)
        shapes += [{key: tuple(p.shape) for key, p in net.state_dict().items()}]
        assert {m.t for m in net.modules() if hasattr(m, "t")} == {t}
    assert shapes[0] == shapes[1] == shapes[2]


def test_the_unit_of_r2unet() -> None:
    """Its second and third turn add the newest output to the first input."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 5)
    results = []
    for t in (1, 2, 3):
        torch.manual_seed(1)
        unit = randomised(r2unet.RecurrentUnit(4, t))
        f = step(unit)
        y1 = f(x)
        y2 = f(x + y1)
        y3 = f(x + y2)
        y4 = f(x + y3)
        expected = {1: y2, 2: y3, 3: y4}[t]
        torch.testing.assert_close(unit(x), expected)
        results += [expected]
    assert not torch.allclose(results[0], results[1])
    assert not torch.allclose(results[1], results[2])


def test_the_unit_of_rrcnn_fcn() -> None:
    """Its turns add the first output to the newest one."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 5)
    results = []
    for t in (1, 2, 3):
        torch.manual_seed(1)
        unit = randomised(rrcnn_fcn.KeepingUnit(4, t))
        f = step(unit)
        y = f(x)
        x1 = f(x + y)
        x2 = f(x1 + y)
        x3 = f(x2 + y)
        expected = {1: x1, 2: x2, 3: x3}[t]
        torch.testing.assert_close(unit(x), expected)
        results += [expected]
    other = randomised(r2unet.RecurrentUnit(4, 2))
    other.load_state_dict(unit.state_dict())
    assert not torch.allclose(results[1], other(x))  # this is how the two units differ


@pytest.mark.parametrize("module", MODULES)
def test_a_block_adds_its_projection_without_an_activation(module: ModuleType) -> None:
    torch.manual_seed(0)
    block = randomised(module.RRCNNBlock(3, 8, 2))
    x = torch.randn(2, 3, 6, 6)
    projected = F.conv2d(x, block.project.weight, block.project.bias)
    out = block(x)
    torch.testing.assert_close(out, projected + block.units[1](block.units[0](projected)))
    assert (out < 0).any()
    assert len(block.units) == 2


def test_upsampling_is_by_nearest_neighbours() -> None:
    torch.manual_seed(0)
    up = randomised(r2unet.Up(6, 3))
    x = torch.randn(1, 6, 4, 5)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x), step(up)(doubled))


def test_the_skip_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r2unet, "WIDTHS", (2, 4, 6, 8, 10))
    torch.manual_seed(0)
    net = r2unet.build(3).eval()
    seen: dict[str, Tensor] = {}
    for name in ("encoder", "ups", "decoder"):
        for number, layer in enumerate(getattr(net, name)):
            key = f"{name}{number}"
            layer.register_forward_hook(
                lambda m, x, y, key=key: seen.update({key: y, key + "<": x[0]})
            )
    net(torch.rand(1, 3, 32, 48))
    for level in range(4):
        skip, below = seen[f"encoder{3 - level}"], seen[f"ups{level}"]
        assert torch.equal(seen[f"decoder{level}<"], torch.cat([skip, below], dim=1))
    for level in range(1, 5):
        pooled = F.max_pool2d(seen[f"encoder{level - 1}"], 2)
        assert torch.equal(seen[f"encoder{level}<"], pooled)


def test_the_layers_of_rrcnn_fcn() -> None:
    with torch.device("meta"):
        net = rrcnn_fcn.build(27).eval()
    widths = [block.project.out_channels for block in net.encoder]
    assert widths == [32, 64, 128, 256, 512, 1024]
    kinds = [type(layer).__name__ for layer in net.decoder]
    assert kinds == [*["ConvTranspose2d", "ReLU", "BatchNorm2d"] * 6, "MaxPool2d", "Conv2d"]
    ups = [(m.in_channels, m.out_channels) for m in net.decoder[:-2:3]]
    assert ups == [(1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64), (64, 32)]
    sizes = []
    for layer in (*net.encoder, net.decoder[-2]):
        layer.register_forward_hook(lambda m, x, y: sizes.append((x[0].shape[-1], y.shape[-1])))
    net(torch.zeros(1, 3, 64, 64, device="meta"))
    assert sizes == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (128, 64)]
