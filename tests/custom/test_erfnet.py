"""ERFNet, and DarrenNet, which is built from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.geometry import declared
from bench.models.weights import load_encoder
from custom_models import darrennet, erfnet
from custom_models.erfnet import Downsampler, NonBottleneck1d, Upsampler


def blocks(part: nn.Module) -> list[NonBottleneck1d]:
    return [m for m in part.modules() if isinstance(m, NonBottleneck1d)]


def rates(part: nn.Module) -> list[float]:
    return [block.dropout.p for block in blocks(part)]


def randomised(net: nn.Module) -> nn.Module:
    """Set BatchNorm statistics other than 0 and 1."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return net.eval()


def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Compute BatchNorm by its formula, with the authors' eps."""
    mean, var, weight, bias = (
        t[:, None, None] for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


def test_only_the_second_pair_is_dilated() -> None:
    net = erfnet.build(21)
    found = [block.conv3x1_2.dilation[0] for block in blocks(net.encoder)]
    assert found == [1] * 5 + [2, 4, 8, 16, 2, 4, 8, 16]
    assert [block.conv3x1_2.dilation[0] for block in blocks(net.decoder)] == [1] * 4
    for block in blocks(net):
        dilation = block.conv3x1_2.dilation[0]
        assert block.conv3x1_1.dilation == block.conv1x3_1.dilation == (1, 1)
        assert (block.conv3x1_2.dilation, block.conv3x1_2.padding) == ((dilation, 1), (dilation, 0))
        assert (block.conv1x3_2.dilation, block.conv1x3_2.padding) == ((1, dilation), (0, dilation))


def test_a_block_against_its_formula() -> None:
    block = randomised(NonBottleneck1d(6, 0.3, 4))
    x = torch.randn(2, 6, 20, 24)

    def conv(layer: nn.Conv2d, x: Tensor, padding: tuple[int, int], dilation: int = 1) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, padding=padding, dilation=dilation)

    y = conv(block.conv3x1_1, x, (1, 0)).clamp(min=0)
    y = norm(block.bn1, conv(block.conv1x3_1, y, (0, 1))).clamp(min=0)
    y = conv(block.conv3x1_2, y, (4, 0), 4).clamp(min=0)
    y = norm(block.bn2, conv(block.conv1x3_2, y, (0, 4), 4))
    torch.testing.assert_close(block(x), (x + y).clamp(min=0))


def test_a_downsampler_against_its_formula() -> None:
    down = randomised(Downsampler(3, 16))
    x = torch.randn(2, 3, 8, 12)
    conv = F.conv2d(x, down.conv.weight, down.conv.bias, stride=2, padding=1)
    assert conv.shape[1] == 13
    y = norm(down.bn, torch.cat([conv, F.max_pool2d(x, 2)], dim=1)).clamp(min=0)
    torch.testing.assert_close(down(x), y)


def test_an_upsampler_against_its_formula() -> None:
    up = randomised(Upsampler(8, 4))
    x = torch.randn(2, 8, 5, 6)
    y = F.conv_transpose2d(x, up.conv.weight, up.conv.bias, stride=2, padding=1, output_padding=1)
    torch.testing.assert_close(up(x), norm(up.bn, y).clamp(min=0))


def test_dropout_and_norm() -> None:
    net = erfnet.build(21)
    assert rates(net.encoder) == [0.03] * 5 + [0.3] * 8
    assert rates(net.decoder) == [0.0] * 4
    assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    kinds = {type(m) for m in net.modules() if "Dropout" in type(m).__name__}
    assert kinds == {nn.Dropout2d}
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(m.bias is not None for m in convs)


def test_the_order_of_layers() -> None:
    net = erfnet.build(21)
    encoder = [type(layer).__name__ for layer in net.encoder.layers]
    block = "NonBottleneck1d"
    assert encoder == ["Downsampler", *[block] * 5, "Downsampler", *[block] * 8]
    decoder = [type(layer).__name__ for layer in net.decoder.layers]
    assert decoder == ["Upsampler", block, block] * 2
    assert net.decoder.output_conv.kernel_size == net.decoder.output_conv.stride == (2, 2)


def test_the_heads_of_the_encoder() -> None:
    eighth, image = erfnet.build(5, head="eighth").eval(), torch.rand(2, 3, 64, 96)
    assert eighth(image).shape == (2, 5, 8, 12)
    geometry = declared(eighth)
    assert geometry is not None
    assert (geometry.stride, geometry.logits_size(96)) == (8, 12)
    assert erfnet.build(5, head="classification").eval()(image).shape == (2, 5)
    with pytest.raises(ValueError, match="full, eighth, classification"):
        erfnet.build(5, head="half")


def test_the_first_stage_s_head_is_of_the_encoder_s_features() -> None:
    net, image = erfnet.build(5, head="eighth").eval(), torch.rand(1, 3, 32, 32)
    features, head = net.encoder(image), net.encoder.output_conv
    torch.testing.assert_close(net(image), F.conv2d(features, head.weight, head.bias))


def test_the_first_stage_starts_the_second() -> None:
    def encoder(head: str) -> dict[str, tuple[int, ...]]:
        state = erfnet.build(7, head=head).encoder.state_dict()
        return {key: tuple(value.shape) for key, value in state.items()}

    assert encoder("full") == encoder("eighth")
    head = {key for key in encoder("full") if key.startswith("output_conv.")}
    assert len(head) == 2
    assert encoder("full").keys() - head == encoder("classification").keys()


def test_a_classifier_s_encoder_is_renamed() -> None:
    wanted = erfnet.build(1000, head="classification").encoder.state_dict()
    theirs = {f"features.{key}": value for key, value in wanted.items()}
    theirs["classifier.linear.weight"] = torch.zeros(1)
    adapted = erfnet.build(5).encoder.adapted(theirs)
    assert adapted.keys() == {*wanted, "classifier.linear.weight"}
    assert all(torch.equal(adapted[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("build", [erfnet.build, darrennet.build])
def test_the_authors_file_fills_the_encoder(build: Callable[[int], nn.Module]) -> None:
    """Its keys are those of train/erfnet_imagenet.py; loading removes `module.`."""
    trained, net = erfnet.build(1000, head="classification"), build(5)
    wanted = trained.encoder.state_dict()
    theirs = {f"features.encoder.{key}": value for key, value in wanted.items()}
    theirs |= {
        f"classifier.{key}": value
        for key, value in trained.linear.named_parameters(prefix="linear")
    }
    left = load_encoder(net, theirs, "erfnet_encoder_pretrained.pth.tar")
    assert left == ("classifier.linear.bias", "classifier.linear.weight")
    filled = net.encoder.state_dict()
    assert all(torch.equal(filled[key], value) for key, value in wanted.items())


def test_darrennet_s_encoder_is_erfnet_s() -> None:
    erf = {key: value.shape for key, value in erfnet.build(21).encoder.state_dict().items()}
    ours = {key: value.shape for key, value in darrennet.build(21).encoder.state_dict().items()}
    assert {key: shape for key, shape in erf.items() if not key.startswith("output_conv.")} == ours
    decoder = {key: value.shape for key, value in erfnet.build(21).decoder.state_dict().items()}
    assert {k: v.shape for k, v in darrennet.build(21).decoder.state_dict().items()} == decoder


@pytest.mark.parametrize(
    ("options", "encoder", "decoder"),
    [
        ({}, [0.03] * 5 + [0.3] * 8, 0.0),
        ({"transfer": True}, [0.1] * 13, 0.1),
        ({"dropout": 0.2}, [0.2] * 13, 0.2),
        ({"dropout": 0.0}, [0.0] * 13, 0.0),
        ({"transfer": True, "dropout": 0.25}, [0.25] * 13, 0.25),
        ({"transfer": True, "dropout": 0.0}, [0.0] * 13, 0.0),
    ],
)
def test_darrennet_s_dropout(options: dict[str, Any], encoder: list[float], decoder: float) -> None:
    net = darrennet.build(21, **options)
    assert rates(net.encoder) == encoder
    assert rates(net.decoder) == [decoder] * 4
