"""U-Net with padded convolutions and BatchNorm (after Ronneberger, Fischer and Brox 2015, arXiv
1505.04597).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_models.initialisation import kaiming

WIDTHS = (64, 128, 256, 512, 1024)


class DoubleConv(nn.Sequential):
    """Two padded 3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """The usual U-Net today: 31,038,933 parameters at 21 classes (31,044,821 with biases).

    Takes any size of 16 or more: if a level's size is odd, the upsampled map is padded to the
    size of the skip. The documents' variant has biases in its 3x3 convolutions. Weights
    start with He initialisation, as in the paper; `unet_valid` is the paper's own network.

    Args:
        num_classes: K.
        bias: whether the 3x3 convolutions have biases in addition to BatchNorm.
    """

    input_multiple = 1
    input_minimum = 16

    def __init__(self, num_classes: int, bias: bool = False) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([DoubleConv(a, b, bias) for a, b in pairwise((3, *WIDTHS))])
        decoder = list(pairwise(WIDTHS[::-1]))
        self.ups = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in decoder])
        self.decoder = nn.ModuleList([DoubleConv(a, b, bias) for a, b in decoder])
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        x: Tensor = self.encoder[0](image)
        skips: list[Tensor] = []
        for block in self.encoder[1:]:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for up, block in zip(self.ups, self.decoder, strict=True):
            skip = skips.pop()
            x = block(torch.cat([skip, _padded(up(x), skip)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _padded(x: Tensor, like: Tensor) -> Tensor:
    """Pad a map with zeros to the size of `like`, which is at most one pixel larger."""
    below, right = like.shape[-2] - x.shape[-2], like.shape[-1] - x.shape[-1]
    return F.pad(x, (0, right, 0, below))


def build(num_classes: int, bias: bool = False) -> nn.Module:
    """Build the U-Net with padded convolutions."""
    net = UNet(num_classes, bias)
    kaiming(net)
    return net
