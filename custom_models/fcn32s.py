"""FCN-32s (Long, Shelhamer and Darrell 2015, arXiv 1411.4038); FCN-16s and FCN-8s use its parts."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from custom_models.initialisation import kaiming

CONVOLUTIONS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # VGG-16: channels, layers
FC6, FC7 = (4096, 512, 7, 7), (4096, 4096, 1, 1)
PADDING = 100  # of conv1_1, so that fc6 fits even on the smallest image


class VGG16(nn.Module):
    """VGG-16 (Simonyan and Zisserman 2015, arXiv 1409.1556) with fc6 and fc7 as convolutions.

    The first convolution pads by 100, pooling rounds up, and fc6 is a 7x7 convolution without
    padding. The keys of `features` are torchvision's.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels, padding, ends = 3, PADDING, []
        for channels, times in CONVOLUTIONS:
            for _ in range(times):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=padding)]
                layers += [nn.ReLU(inplace=True)]
                in_channels, padding = channels, 1
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
            ends += [len(layers)]
        self.features = nn.Sequential(*layers)
        self.ends = tuple(ends)  # where each of the five stages ends in `features`
        self.fc6 = nn.Conv2d(512, 4096, 7)
        self.fc7 = nn.Conv2d(4096, 4096, 1)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (N, 3, H, W) to pool3 (256 channels), pool4 (512) and fc7 (4096)."""
        pool3 = self.features[: self.ends[2]](image)
        pool4 = self.features[self.ends[2] : self.ends[3]](pool3)
        pool5 = self.features[self.ends[3] :](pool4)
        fc6 = self.dropout(self.relu(self.fc6(pool5)))
        return pool3, pool4, self.dropout(self.relu(self.fc7(fc6)))

    @staticmethod
    def adapted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename and reshape the weights of a VGG-16 classifier from torchvision or timm.

        The first two fully connected layers become fc6 and fc7; the last keeps its name.
        """
        layers = {"classifier.0": "fc6", "classifier.3": "fc7"}  # torchvision's
        layers |= {"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7"}  # timm's
        shapes = {"fc6.weight": FC6, "fc7.weight": FC7}
        adapted = {}
        for key, value in state.items():
            layer, _, kind = key.rpartition(".")
            name = f"{layers.get(layer, layer)}.{kind}"
            shape = shapes.get(name, value.shape)
            adapted[name] = value.reshape(shape) if value.numel() == math.prod(shape) else value
        return adapted


def upsampling(num_classes: int, factor: int, learned: bool) -> nn.ConvTranspose2d:
    """Return a transposed convolution that starts as bilinear interpolation, or is fixed as it."""
    deconv = nn.ConvTranspose2d(num_classes, num_classes, 2 * factor, stride=factor, bias=False)
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    tent = 1 - distance
    with torch.no_grad():
        deconv.weight.zero_()
        deconv.weight[range(num_classes), range(num_classes)] = tent[:, None] * tent[None, :]
    return deconv.requires_grad_(learned)


def score(in_channels: int, num_classes: int) -> nn.Conv2d:
    """Return a 1x1 classifier whose weights and biases start at zero."""
    conv = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Cut out a window of the size of `like`, `offset` pixels from the top and the left."""
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]


def begin(encoder: VGG16, pretrained: Literal["imagenet"] | None) -> None:
    """Load ImageNet weights, which torchvision downloads, or draw them by He initialisation.

    Raises:
        ValueError: if `pretrained` is anything else.
    """
    if pretrained not in (None, "imagenet"):
        raise ValueError(f"VGG-16 has weights 'imagenet', not {pretrained!r}")
    if pretrained is None:
        kaiming(encoder)
    else:
        weights = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        state = encoder.adapted(weights)
        encoder.load_state_dict({key: state[key] for key in encoder.state_dict()})


class FCN32s(nn.Module):
    """One prediction at stride 32, upsampled in one step: 136,152,917 parameters at 21 classes.

    Takes images of any size: conv1_1 pads by 100 pixels, and the upsampled scores are cropped at
    the authors' fixed offset of 19. As in their code, score layers start at zero and the
    upsampling is bilinear and fixed. FCN-16s starts from its weights, and FCN-8s from those of
    FCN-16s (`init_from`).

    The authors train with batch size 1, SGD with momentum 0.99, weight decay 5e-4, biases at
    twice the learning rate without decay, a summed loss and a learning rate of 1e-10.

    Args:
        num_classes: K.
        learned: whether to train the upsampling, which starts as bilinear.
    """

    input_multiple = 1

    def __init__(self, num_classes: int, learned: bool = False) -> None:
        super().__init__()
        self.encoder = VGG16()
        self.score_fc7 = score(4096, num_classes)
        self.upscore32 = upsampling(num_classes, 32, learned)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        _, _, fc7 = self.encoder(image)
        return crop(self.upscore32(self.score_fc7(fc7)), 19, image)


def build(
    num_classes: int, learned: bool = False, pretrained: Literal["imagenet"] | None = None
) -> nn.Module:
    """Build FCN-32s; `pretrained="imagenet"` downloads the weights of VGG-16."""
    net = FCN32s(num_classes, learned)
    begin(net.encoder, pretrained)
    return net
