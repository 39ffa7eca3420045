"""FCN-32s, FCN-16s and FCN-8s: the authors' crops restore positions, and VGG-16's weights load."""

import importlib

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from custom_models import fcn8s, fcn16s, fcn32s
from custom_models.fcn32s import VGG16, crop, score, upsampling

NAMES = ("fcn32s", "fcn16s", "fcn8s")
SKIPS = [  # network, the score layer in use, its stride
    ("fcn32s", "score_fc7", 32),
    ("fcn16s", "score_fc7", 32),
    ("fcn16s", "score_pool4", 16),
    ("fcn8s", "score_fc7", 32),
    ("fcn8s", "score_pool4", 16),
    ("fcn8s", "score_pool3", 8),
]


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build without drawing 134 million numbers that are never used."""
    for layer in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
    for module in (fcn32s, fcn16s, fcn8s):
        monkeypatch.setattr(module, "begin", lambda encoder, pretrained: None)


def build(name: str, num_classes: int, **options: bool) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = importlib.import_module(f"custom_models.{name}").build(num_classes, **options)
    return net.eval()


def on_meta(name: str, num_classes: int, **options: bool) -> nn.Module:
    with torch.device("meta"):
        return build(name, num_classes, **options)


def delta(conv: nn.Conv2d, in_channels: int = 1) -> nn.Conv2d:
    """Return a one-channel convolution that copies the pixel under its centre."""
    assert conv.dilation == (1, 1)
    thin = nn.Conv2d(in_channels, 1, conv.kernel_size, conv.stride, conv.padding, bias=False)
    nn.init.zeros_(thin.weight)
    middle = conv.kernel_size[0] // 2
    with torch.no_grad():
        thin.weight[:, 0, middle, middle] = 1.0
    return thin


def traced(name: str, speaks: str) -> nn.Module:
    """Return a one-channel network that passes the first image channel on by one score layer only.

    Padding, pooling, kernel sizes, upsampling and crops are unchanged.
    """
    net = build(name, 1)
    features = net.encoder.features
    for index, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            features[index] = delta(layer, 3 if index == 0 else 1)
    net.encoder.fc6, net.encoder.fc7 = delta(net.encoder.fc6), delta(net.encoder.fc7)
    for layer in ("score_fc7", "score_pool4", "score_pool3"):
        if hasattr(net, layer):
            setattr(net, layer, delta(getattr(net, layer)))
            nn.init.constant_(getattr(net, layer).weight, float(layer == speaks))
    return net


def shifts(net: nn.Module, size: int, rows: list[int]) -> Tensor:
    """Return how far (down, right) the responses are from the points that cause them, (N, 2).

    N is the number of rows. A point's column is its row plus 3.
    """
    image = torch.zeros(len(rows), 3, size, size)
    for number, row in enumerate(rows):
        image[number, 0, row, row + 3] = 1.0
    with torch.no_grad():
        out = net(image)[:, 0]
    mass = out.sum(dim=(1, 2))
    assert (mass > 0).all()
    at = torch.arange(size, dtype=out.dtype)
    down = (out.sum(2) @ at) / mass - torch.tensor(rows)
    right = (out.sum(1) @ at) / mass - torch.tensor(rows) - 3
    return torch.stack([down, right], dim=1)


def whole(stride: int, size: int) -> list[int]:
    """Return the rows of a whole number of cells in the centre of an image."""
    first = size // 2 - stride // 2
    return list(range(first, first + stride))


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("size", [128, 161])
@pytest.mark.parametrize(("name", "speaks", "stride"), SKIPS)
def test_a_point_comes_back_in_its_place(name: str, speaks: str, stride: int, size: int) -> None:
    found = shifts(traced(name, speaks), size, whole(stride, size))
    assert found.abs().max() < stride / 2  # within its own cell
    assert found.mean(0).abs().max() < 1e-3  # exact on average over all positions in a cell


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize("name", NAMES)
def test_the_finest_score_in_small_images(name: str, size: int) -> None:
    """Upsampling spreads over the edges, so only the peak can be measured."""
    stride = int(name.removeprefix("fcn").removesuffix("s"))
    finest = {32: "score_fc7", 16: "score_pool4", 8: "score_pool3"}[stride]
    net = traced(name, finest)
    for row in (20, 33, 47):
        image = torch.zeros(1, 3, size, size)
        image[0, 0, row, row + 3] = 1.0
        with torch.no_grad():
            out = net(image)[0, 0]
        places = (out == out.max()).nonzero().float().mean(0)
        assert (places - torch.tensor([row, row + 3.0])).abs().max() <= stride / 2


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize(("name", "speaks", "stride"), SKIPS)
def test_a_point_comes_back_in_a_large_image(name: str, speaks: str, stride: int) -> None:
    found = shifts(traced(name, speaks), 512, [100, 251, 390])
    assert found.abs().max() < stride / 2


@pytest.mark.usefixtures("unfilled")
def test_a_centre_crop_is_13_pixels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure above detects the document's last crop, which differs from the authors'."""

    def centred(x: Tensor, offset: int, like: Tensor) -> Tensor:
        if offset == 31:
            offset = (x.shape[-1] - like.shape[-1]) // 2
        return crop(x, offset, like)

    monkeypatch.setattr(fcn8s, "crop", centred)
    found = shifts(traced("fcn8s", "score_pool3"), 512, whole(8, 512))
    torch.testing.assert_close(found.mean(0), torch.tensor([-13.0, -13.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_bilinear_interpolation(factor: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 6, 5)
    with torch.no_grad():
        ours = upsampling(3, factor, learned=False)(x)
    assert ours.shape == (2, 3, 7 * factor, 6 * factor)
    theirs = F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    half = factor // 2
    ours = ours[..., half:-half, half:-half]
    inside = (..., slice(half, -half), slice(half, -half))
    torch.testing.assert_close(ours[inside], theirs[inside])


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_upsampling_is_fixed_unless_asked(name: str, learned: bool) -> None:
    net = on_meta(name, 4, learned=learned)
    kernels = {key: p for key, p in net.named_parameters() if key.startswith("upscore")}
    deconvs = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(kernels) == len(deconvs) == {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}[name]
    assert all(p.requires_grad == learned for p in kernels.values())
    assert all(p.requires_grad for key, p in net.named_parameters() if key not in kernels)


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("name", NAMES)
def test_score_layers_begin_at_zero(name: str) -> None:
    net = build(name, 4)
    layers = {key: m for key, m in net.named_children() if key.startswith("score")}
    assert len(layers) == {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}[name]
    assert not any(p.any() for layer in layers.values() for p in layer.parameters())
    assert {m.kernel_size for m in layers.values()} == {(1, 1)}


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize(("at_once", "scales"), [(False, (1.0, 1.0)), (True, (0.01, 0.0001))])
def test_features_are_scaled_before_they_are_scored(
    at_once: bool, scales: tuple[float, float]
) -> None:
    net = fcn8s.build(2, at_once=at_once).eval()
    pool3, pool4 = torch.rand(1, 256, 29, 29), torch.rand(1, 512, 15, 15)
    given = (pool3, pool4, torch.rand(1, 4096, 2, 2))
    seen: dict[str, Tensor] = {}

    class Encoder(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return given

    net.encoder = Encoder()
    for name in ("score_pool4", "score_pool3"):
        layer = net.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
    with torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(seen["score_pool4"], pool4 * scales[0])
    torch.testing.assert_close(seen["score_pool3"], pool3 * scales[1])


def test_the_encoder_is_the_authors_vgg() -> None:
    with torch.device("meta"):
        encoder = VGG16()
    convs = [m for m in encoder.features if isinstance(m, nn.Conv2d)]
    assert [m.padding for m in convs] == [(100, 100)] + [(1, 1)] * 12
    pools = [m for m in encoder.features if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride, m.ceil_mode) for m in pools] == [(2, 2, True)] * 5
    assert (encoder.fc6.kernel_size, encoder.fc6.padding) == ((7, 7), (0, 0))
    assert (encoder.fc7.kernel_size, encoder.fc7.padding) == ((1, 1), (0, 0))


def test_dropout_follows_both_fully_connected_layers() -> None:
    with torch.device("meta"):
        encoder = VGG16()
    seen: list[tuple[int, float]] = []
    encoder.dropout.register_forward_hook(lambda m, x, y: seen.append((x[0].shape[1], m.p)))
    encoder.train()(torch.zeros(1, 3, 32, 32, device="meta"))
    assert seen == [(4096, 0.5), (4096, 0.5)]


@pytest.mark.parametrize(("coarse", "fine"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s")])
def test_each_stage_starts_the_next(coarse: str, fine: str) -> None:
    before, after = (
        {key: tuple(value.shape) for key, value in on_meta(name, 5).state_dict().items()}
        for name in (coarse, fine)
    )
    carried = {key for key in before if not key.startswith("upscore")}
    carried |= {"upscore2.weight"} & before.keys()
    assert {key: before[key] for key in carried} == {key: after.get(key) for key in carried}
    assert {key for key in carried if key.startswith("score")}
    shared = before.keys() & after.keys()  # the same name always has the same shape
    assert all(before[key] == after[key] for key in shared)


def test_score_is_a_classifier_of_each_pixel() -> None:
    layer = score(8, 3)
    assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (8, 3, (1, 1))
    assert layer.bias is not None


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_classifier_s_weights_fill_the_encoder(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With conv1_1 padded as in theirs, fc7 of a 224 x 224 image is equal; weights are random."""
    for layer in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
    if library == "torchvision":
        classifier = torchvision.models.vgg16(init_weights=False).eval()
    else:
        monkeypatch.setattr("torch.nn.init.kaiming_normal_", lambda weight, **options: weight)
        monkeypatch.setattr("torch.nn.init.normal_", lambda weight, *options: weight)
        classifier = timm.create_model("vgg16").eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in classifier.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 600
            parameter.uniform_(-1, 1).mul_((6 / fan) ** 0.5)
    with torch.device("meta"):
        encoder = VGG16().eval()
    state = encoder.adapted(classifier.state_dict())
    left = state.keys() - encoder.state_dict().keys()
    assert left == {"classifier.6.weight", "classifier.6.bias"} or left == {
        "head.fc.weight",
        "head.fc.bias",
    }
    encoder.load_state_dict({k: v for k, v in state.items() if k not in left}, assign=True)
    encoder.features[0].padding = (1, 1)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        _, _, ours = encoder(image)
        features = classifier.features(image)
        if library == "torchvision":
            theirs = classifier.classifier[:6](classifier.avgpool(features).flatten(1))
        else:
            theirs = classifier.pre_logits(features).flatten(1)
    assert ours.shape == (1, 4096, 1, 1)
    assert 0.1 < (theirs > 0).float().mean() < 0.9
    scale = float(theirs.max())
    torch.testing.assert_close(ours.flatten(1), theirs, rtol=0, atol=2e-5 * scale)
