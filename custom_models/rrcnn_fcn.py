"""RRCNN-FCN, the custom model of a student report on IDD (Ai, Qiao and Zhang 2021), after the
recurrent residual blocks of R2U-Net (Alom et al. 2018, arXiv 1802.06955).
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from custom_models.fcn import deconvolutions
from custom_models.initialisation import xavier
from custom_models.r2unet import RecurrentUnit, RRCNNBlock

WIDTHS = (32, 64, 128, 256, 512, 1024)


class KeepingUnit(RecurrentUnit):
    """R2U-Net's recurrent unit, except that each turn adds the first output to the newest one.

    y = f(x), then x = f(x + y), t times.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, C, H, W)."""
        y = F.relu(self.norm(self.conv(x)))
        for _ in range(self.t):
            x = F.relu(self.norm(self.conv(x + y)))
        return x


class RRCNNFCN(nn.Module):
    """Six recurrent blocks, six transposed convolutions: 41,601,691 parameters at 27 classes.

    There are only five max-pools between the blocks, so the sixth transposed convolution leads to
    twice the input's size, which a max-pool halves again before the 1x1 classifier. ReLU and
    BatchNorm follow each transposed convolution, in this order, as in the report's baseline.
    Weights start with Xavier initialisation, as the report says. H and W must be multiples of 32.

    Args:
        num_classes: K.
        t: how often each unit applies its convolution again.
    """

    input_multiple = 32

    def __init__(self, num_classes: int, t: int = 2) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [RRCNNBlock(a, b, t, KeepingUnit) for a, b in pairwise((3, *WIDTHS))]
        )
        up = deconvolutions((WIDTHS[-1], *WIDTHS[::-1]))
        self.decoder = nn.Sequential(*up, nn.MaxPool2d(2), nn.Conv2d(WIDTHS[0], num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        x: Tensor = self.encoder[0](image)
        for block in self.encoder[1:]:
            x = block(F.max_pool2d(x, 2))
        logits: Tensor = self.decoder(x)
        return logits


def build(num_classes: int, t: int = 2) -> nn.Module:
    """Build RRCNN-FCN."""
    net = RRCNNFCN(num_classes, t)
    xavier(net)
    return net
