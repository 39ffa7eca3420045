"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597) exactly as in the paper."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_models.initialisation import kaiming

WIDTHS = (64, 128, 256, 512, 1024)
DROPOUT = (0.0, 0.0, 0.0, 0.5, 0.5)  # at the end of the contracting path


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions without padding, each with ReLU: 2 pixels less on each side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3),
            nn.ReLU(inplace=True),
        )


class UNetValid(nn.Module):
    """Valid convolutions, crop and copy, no BatchNorm: 31,033,045 parameters at 21 classes.

    H and W must be 12 more than a multiple of 16, and at least 188. The output is 184 pixels
    smaller, 92 on each side (572 becomes 388). As in the paper, images are mirrored at their edges
    beforehand, weights start with He initialisation, and the contracting path ends with dropout,
    whose rate of 0.5 is that of the authors' Caffe model.

    Args:
        num_classes: K.
        in_channels: 1 in the paper, whose network has 31,030,658 parameters at 2 classes.
    """

    input_multiple = 16
    input_remainder = 12
    input_minimum = 188
    output_margin = 92

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        encoder = pairwise((in_channels, *WIDTHS))
        decoder = list(pairwise(WIDTHS[::-1]))
        self.encoder = nn.ModuleList([DoubleConv(a, b) for a, b in encoder])
        self.dropouts = nn.ModuleList([nn.Dropout(rate) for rate in DROPOUT])
        self.ups = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in decoder])
        self.decoder = nn.ModuleList([DoubleConv(a, b) for a, b in decoder])
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N, K, H - 184, W - 184)."""
        x, skips = image, []
        for level, (block, dropout) in enumerate(zip(self.encoder, self.dropouts, strict=True)):
            x = dropout(block(F.max_pool2d(x, 2) if level else x))
            skips.append(x)
        skips.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = F.relu(up(x))
            x = block(torch.cat([_centre(skips.pop(), x), x], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _centre(x: Tensor, like: Tensor) -> Tensor:
    """Cut the centre of a map to the size of `like`."""
    height, width = like.shape[-2:]
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def build(num_classes: int) -> nn.Module:
    """Build the paper's U-Net for RGB images."""
    net = UNetValid(num_classes)
    kaiming(net)
    return net
