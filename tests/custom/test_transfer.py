"""Networks on a pretrained encoder: ResNet-FCN, PSPNet, DeepLabv3 + deconvolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_models import deeplabv3_deconv, pspnet, resnet_fcn

DECONV = ["ConvTranspose2d", "ReLU"]
NORMED = [*DECONV, "BatchNorm2d"]


def statistics(part: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in part.named_buffers()}


def same(before: dict[str, Tensor], part: nn.Module) -> bool:
    after = dict(part.named_buffers())
    assert before.keys() == after.keys()
    return all(torch.equal(value, after[key]) for key, value in before.items())


def train_once(net: nn.Module, size: int = 64) -> None:
    torch.manual_seed(0)
    net.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    net(torch.randn(2, 3, size, size)).square().mean().backward()
    optimizer.step()


def test_the_decoder_over_resnet50() -> None:
    with torch.device("meta"):
        net = resnet_fcn.build(21)
    kinds = [type(layer).__name__ for layer in net.decoder]
    assert kinds == [*["Conv2d", "ReLU"] * 2, *DECONV * 2, *NORMED * 2]
    layers = [m for m in net.decoder if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    widths = [(m.in_channels, m.out_channels) for m in layers]
    assert widths == [(2048, 1024), (1024, 512), (512, 256), (256, 128), (128, 64), (64, 64)]
    assert [m.kernel_size for m in layers] == [(1, 1)] * 2 + [(3, 3)] * 4
    assert [m.stride for m in layers] == [(1, 1)] * 2 + [(2, 2)] * 4


def test_the_decoder_over_resnet34() -> None:
    with torch.device("meta"):
        net = resnet_fcn.build(21, encoder="resnet34")
    assert [type(layer).__name__ for layer in net.decoder] == NORMED * 5
    widths = [(m.in_channels, m.out_channels) for m in net.decoder[::3]]
    assert widths == [(512, 512), (512, 256), (256, 128), (128, 64), (64, 32)]


@pytest.mark.parametrize(("encoder", "factor"), [("resnet50", 2), ("resnet34", 1)])
def test_logits_are_upsampled_over_resnet50_only(encoder: str, factor: int) -> None:
    torch.manual_seed(0)
    net, seen = resnet_fcn.build(3, encoder=encoder).eval(), []
    net.head.register_forward_hook(lambda m, x, y: seen.append(y))
    with torch.no_grad():
        logits = net(torch.randn(1, 3, 64, 96))
    [coarse] = seen
    assert coarse.shape[-2:] == (64 // factor, 96 // factor)
    expected = coarse
    if factor == 2:
        expected = F.interpolate(coarse, (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("encoder", ["resnet50", "resnet34"])
def test_a_frozen_encoder_stays_as_it_is(encoder: str) -> None:
    torch.manual_seed(0)
    net = resnet_fcn.build(3, encoder=encoder, freeze_encoder=True)
    weights = {key: p.clone() for key, p in net.encoder.named_parameters()}
    inside, outside = statistics(net.encoder), statistics(net.decoder)
    train_once(net)
    assert not any(p.requires_grad or p.grad is not None for p in net.encoder.parameters())
    assert all(torch.equal(p, weights[key]) for key, p in net.encoder.named_parameters())
    assert same(inside, net.encoder)
    assert not same(outside, net.decoder)
    assert net.training
    assert net.decoder.training
    assert not any(m.training for m in net.encoder.modules())


def test_an_encoder_that_is_not_frozen_learns() -> None:
    net = resnet_fcn.build(3, encoder="resnet34")
    inside = statistics(net.encoder)
    train_once(net)
    assert not same(inside, net.encoder)
    assert all(p.grad is not None for p in net.encoder.parameters())


def test_an_encoder_of_another_stride_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="ends at stride 16"):
        resnet_fcn.build(3, encoder="vit_tiny_patch16_224")


@pytest.mark.parametrize("encoder", ["resnet50s", "resnet50"])
def test_pspnet_is_dilated_in_every_block_of_its_last_two_stages(encoder: str) -> None:
    with torch.device("meta"):
        net = pspnet.build(21, encoder=encoder)
    found = {
        stage: {(b.conv2.dilation, b.conv2.padding, b.conv2.stride) for b in net.encoder[stage]}
        for stage in ("layer1", "layer3", "layer4")
    }
    assert found["layer1"] == {((1, 1), (1, 1), (1, 1))}
    assert found["layer3"] == {((2, 2), (2, 2), (1, 1))}
    assert found["layer4"] == {((4, 4), (4, 4), (1, 1))}
    assert [len(net.encoder[f"layer{n}"]) for n in (1, 2, 3, 4)] == [3, 4, 6, 3]
    third, fourth = net.encoder(torch.zeros(1, 3, 64, 128, device="meta"))
    assert (third.shape, fourth.shape) == ((1, 1024, 8, 16), (1, 2048, 8, 16))


def test_the_pyramid_against_averages_by_hand() -> None:
    torch.manual_seed(0)
    pyramid = pspnet.PyramidPooling(4).eval()
    x = torch.randn(1, 4, 12, 12)
    with torch.no_grad():
        out = pyramid(x)
        assert out.shape == (1, 4 + 4 * 512, 12, 12)
        assert torch.equal(out[:, :4], x)
        for number, (bins, level) in enumerate(zip((1, 2, 3, 6), pyramid.levels, strict=True)):
            side = 12 // bins
            means = x.view(1, 4, bins, side, bins, side).mean(dim=(3, 5))
            found = out[:, 4 + 512 * number :][:, :512]
            corners = found[..., [0, 0, -1, -1], [0, -1, 0, -1]]  # upsampling keeps them
            expected = level(means)[..., [0, 0, -1, -1], [0, -1, 0, -1]]
            torch.testing.assert_close(corners, expected)


def test_the_head_of_pspnet() -> None:
    with torch.device("meta"):
        net = pspnet.build(21)
    for head, widths in ((net.head, (4096, 512, 21)), (net.aux, (1024, 256, 21))):
        conv, dropout, classifier = head[0][0], head[1], head[2]
        assert (conv.in_channels, conv.out_channels, classifier.out_channels) == widths
        assert (conv.kernel_size, conv.padding, classifier.kernel_size) == ((3, 3), (1, 1), (1, 1))
        assert dropout.p == 0.1


def test_pspnet_has_two_heads_in_training() -> None:
    with torch.device("meta"):
        net = pspnet.build(21)
    image = torch.zeros(2, 3, 65, 97, device="meta")
    logits = net.train()(image)
    assert isinstance(logits, dict)
    assert list(logits) == ["out", "aux"]
    assert {value.shape for value in logits.values()} == {(2, 21, 65, 97)}
    assert isinstance(net.eval()(image), Tensor)
    with torch.device("meta"):
        alone = pspnet.build(21, aux_channels=None)
    assert isinstance(alone.train()(image), Tensor)


@pytest.mark.parametrize("build", [pspnet.build, deeplabv3_deconv.build])
def test_one_image_cannot_train(build: type[nn.Module]) -> None:
    with torch.device("meta"):
        net = build(3).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(torch.zeros(1, 3, 64, 64, device="meta"))


def test_what_is_frozen_in_deeplab_stays() -> None:
    torch.manual_seed(0)
    net = deeplabv3_deconv.build(27)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 17_826_075
    aux = net.net.aux_classifier
    frozen, learning = (
        [statistics(part) for part in (net.encoder, aux)],
        statistics(net.net.classifier),
    )
    train_once(net, 32)
    for part, before in zip((net.encoder, aux), frozen, strict=True):
        assert same(before, part)
        assert not any(p.requires_grad or p.grad is not None for p in part.parameters())
        assert not any(m.training for m in part.modules())
    assert not same(learning, net.net.classifier)
    assert all(p.grad is not None for p in net.net.classifier.parameters())


def test_deeplab_s_encoder_can_learn_but_not_its_auxiliary_head() -> None:
    with torch.device("meta"):
        net = deeplabv3_deconv.build(27, freeze_encoder=False).train()
    assert all(p.requires_grad for p in net.encoder.parameters())
    assert all(m.training for m in net.encoder.modules())
    assert not any(p.requires_grad for p in net.net.aux_classifier.parameters())
    assert not any(m.training for m in net.net.aux_classifier.modules())


@pytest.mark.parametrize(("height", "width"), [(33, 33), (65, 97), (101, 50)])
def test_deeplab_takes_odd_sizes(height: int, width: int) -> None:
    with torch.device("meta"):
        net = deeplabv3_deconv.build(5).eval()
    assert net(torch.zeros(1, 3, height, width, device="meta")).shape == (1, 5, height, width)


def test_the_decoder_of_deeplab() -> None:
    with torch.device("meta"):
        net = deeplabv3_deconv.build(27).eval()
    layers = net.net.classifier[1:]
    assert [type(layer).__name__ for layer in layers] == [*NORMED * 4, "Conv2d"]
    widths = [(m.in_channels, m.out_channels) for m in layers[:-1:3]]
    assert widths == [(512, 256), (256, 128), (128, 64), (64, 32)]
    seen = []
    net.net.classifier.register_forward_hook(lambda m, x, y: seen.append((x[0].shape, y.shape)))
    net(torch.zeros(1, 3, 64, 64, device="meta"))
    assert seen == [((1, 2048, 8, 8), (1, 27, 128, 128))]  # stride 8, then twice the image


def test_other_names_of_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="'coco', not 'imagenet'"):
        deeplabv3_deconv.build(27, pretrained="imagenet")
