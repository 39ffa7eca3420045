"""The padded U-Net, the paper's U-Net with valid convolutions, and SimplifiedUNet."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_models import simplified_unet, unet, unet_valid

THIN = (4, 8, 16, 32, 64)  # sizes and positions do not depend on widths


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (unet, unet_valid):
        monkeypatch.setattr(module, "WIDTHS", THIN)
    torch.manual_seed(0)


def watched(net: nn.Module) -> dict[str, Tensor]:
    """Return a list that a run of the network fills with the blocks' inputs ("<") and outputs."""
    seen: dict[str, Tensor] = {}
    for name in ("encoder", "ups", "decoder"):
        for number, layer in enumerate(getattr(net, name)):
            key = f"{name}{number}"
            layer.register_forward_hook(
                lambda m, x, y, key=key: seen.update({key: y.clone(), key + "<": x[0].clone()})
            )
    return seen


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("size", [188, 204, 220, 316, 572])
def test_the_valid_one_gives_184_pixels_less(size: int) -> None:
    net = unet_valid.build(2).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, size, 188)).shape == (1, 2, size - 184, 4)


def test_the_paper_s_figure_1() -> None:
    """From 572 to 388, by way of the sizes that the paper's figure shows."""
    with torch.device("meta"):
        net = unet_valid.UNetValid(2, in_channels=1).eval()
    seen = watched(net)
    out = net(torch.zeros(1, 1, 572, 572, device="meta"))
    assert out.shape == (1, 2, 388, 388)
    assert [seen[f"encoder{n}<"].shape[-1] for n in range(5)] == [572, 284, 140, 68, 32]
    assert [seen[f"encoder{n}"].shape[-1] for n in range(5)] == [568, 280, 136, 64, 28]
    assert [tuple(seen[f"decoder{n}<"].shape[1:3]) for n in range(4)] == [
        (1024, 56),
        (512, 104),
        (256, 200),
        (128, 392),
    ]
    assert [seen[f"decoder{n}"].shape[-1] for n in range(4)] == [52, 100, 196, 388]


@pytest.mark.usefixtures("thin")
def test_the_valid_one_moves_with_its_image() -> None:
    net = unet_valid.build(3).eval()
    image = torch.randn(1, 3, 220, 236)
    with torch.no_grad():
        left, right = net(image[..., :220]), net(image[..., 16:])
    torch.testing.assert_close(left[..., 16:], right[..., :-16])
    assert not torch.allclose(left, right)


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("axis", [2, 3])
def test_the_valid_one_is_symmetric_about_its_centre(axis: int) -> None:
    """With symmetric kernels, a mirrored image gives mirrored logits, so every crop is central."""
    net = unet_valid.build(3).eval()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.add_(layer.weight.flip(axis))
        image = torch.randn(1, 3, 220, 236)
        logits = net(image)
        torch.testing.assert_close(
            net(image.flip(axis)), logits.flip(axis), rtol=0, atol=1e-5 * float(logits.abs().max())
        )
        assert not torch.allclose(logits, logits.flip(axis))


@pytest.mark.usefixtures("thin")
def test_logits_of_unet_valid_have_the_stated_margin() -> None:
    """Output pixel i belongs to the image's pixel 92 + i; tested through the topmost skip only."""
    net = unet_valid.build(1).eval()
    row = {"encoder": net.encoder[0], "decoder": net.decoder[-1]}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for block in row.values():
            for conv in (block[0], block[2]):
                conv.weight[0, 0, 1, 1] = 1.0
        net.head.weight[0, 0] = 1.0
        image = torch.rand(1, 3, 204, 220)
        torch.testing.assert_close(net(image)[0, 0], image[0, 0, 92:-92, 92:-92])


@pytest.mark.usefixtures("thin")
def test_the_valid_one_copies_the_middle_of_the_skip_first() -> None:
    net = unet_valid.build(2).eval()
    seen = watched(net)
    net(torch.randn(1, 3, 204, 188))
    for level in range(4):
        joined, up = seen[f"decoder{level}<"], F.relu(seen[f"ups{level}"])
        skip, (height, width) = seen[f"encoder{3 - level}"], up.shape[-2:]
        assert torch.equal(joined[:, -up.shape[1] :], up)
        top, left = (skip.shape[2] - height) / 2, (skip.shape[3] - width) / 2
        assert top % 1 == left % 1 == 0
        middle = skip[..., int(top) :, int(left) :][..., :height, :width]
        assert torch.equal(joined[:, : skip.shape[1]], middle)


def test_the_valid_one_has_dropout_at_the_end_of_the_contracting_path() -> None:
    with torch.device("meta"):
        net = unet_valid.build(2)
    assert [m.p for m in net.dropouts] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert not any("Norm" in type(m).__name__ for m in net.modules())
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convs) == 18
    assert {m.padding for m in convs} == {(0, 0)}


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (33, 63), (100, 47)])
def test_the_padded_one_pads_what_comes_from_below(height: int, width: int) -> None:
    net = unet.build(3).eval()
    seen = watched(net)
    assert net(torch.rand(1, 3, height, width)).shape == (1, 3, height, width)
    for level in range(4):
        skip, up = seen[f"encoder{3 - level}"], seen[f"ups{level}"]
        below, right = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
        assert below == skip.shape[2] % 2
        assert right == skip.shape[3] % 2
        joined = seen[f"decoder{level}<"]
        assert torch.equal(joined[:, : skip.shape[1]], skip)
        padded = joined[:, skip.shape[1] :]
        assert torch.equal(padded[..., : up.shape[2], : up.shape[3]], up)
        assert not padded[..., up.shape[2] :, :].any()
        assert not padded[..., up.shape[3] :].any()


@pytest.mark.parametrize("bias", [False, True])
def test_each_convolution_of_the_padded_one_has_a_norm_of_its_own(bias: bool) -> None:
    with torch.device("meta"):
        net = unet.build(21, bias=bias)
    doubles = [*net.encoder, *net.decoder]
    assert len(doubles) == 9
    for double in doubles:
        kinds = [type(layer).__name__ for layer in double]
        assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
        assert double[1] is not double[4]
        for conv in (double[0], double[3]):
            assert (conv.bias is not None) == bias
            assert (conv.kernel_size, conv.padding) == ((3, 3), (1, 1))
    norms = {id(m) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == 18
    assert all(m.bias is not None for m in (*net.ups, net.head))


def test_the_layers_of_simplified_unet() -> None:
    with torch.device("meta"):
        net = simplified_unet.build(21)
    conv, relu, pool = "Conv2d", "ReLU", "MaxPool2d"
    kinds = [type(layer).__name__ for layer in net.encoder]
    assert kinds == [*[conv, relu, pool] * 3, conv, relu]
    kinds = [type(layer).__name__ for layer in net.decoder]
    assert kinds == ["ConvTranspose2d", relu, conv, relu] * 3
    layers = [*net.encoder, *net.decoder, net.head]
    widths = [m.out_channels for m in layers if hasattr(m, "out_channels")]
    assert widths == [64, 128, 256, 512, 256, 256, 128, 128, 64, 64, 21]
    assert not any("Norm" in type(m).__name__ for m in net.modules())
    assert net.head.kernel_size == (1, 1)
