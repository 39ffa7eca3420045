import torch

from custom_models import fcn


def test_each_layer_is_conv_relu_norm() -> None:
    net = fcn.build(21)
    kinds = [type(layer).__name__ for layer in net.encoder]
    assert kinds == ["Conv2d", "ReLU", "BatchNorm2d"] * 5
    kinds = [type(layer).__name__ for layer in net.decoder]
    assert kinds == [*["ConvTranspose2d", "ReLU", "BatchNorm2d"] * 5, "Conv2d"]
    widths = [layer.out_channels for layer in net.encoder[::3]]
    assert widths == [32, 64, 128, 256, 512]
    widths = [layer.out_channels for layer in net.decoder[::3]]
    assert widths == [512, 256, 128, 64, 32, 21]


def test_logits_are_no_probabilities() -> None:
    torch.manual_seed(0)
    logits = fcn.build(5).eval()(torch.randn(1, 3, 64, 64))
    assert not torch.allclose(logits.sum(1), torch.ones(1, 64, 64))
