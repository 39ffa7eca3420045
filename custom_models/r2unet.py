"""R2U-Net (Alom, Hasan, Yakopcic, Taha and Asari 2018, arXiv 1802.06955)."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 1024)


class RecurrentUnit(nn.Module):
    """One convolution applied t + 1 times, each time to the input plus its last output.

    All passes share their weights, including BatchNorm's: y = f(x), then y = f(x + y), t times.

    Raises:
        ValueError: if t is negative.
    """

    def __init__(self, channels: int, t: int) -> None:
        super().__init__()
        if t < 0:
            raise ValueError(f"t is 0 or more, not {t}")
        self.t = t
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, C, H, W)."""
        y = F.relu(self.norm(self.conv(x)))
        for _ in range(self.t):
            y = F.relu(self.norm(self.conv(x + y)))
        return y


class RRCNNBlock(nn.Module):
    """A 1x1 convolution, then two recurrent units whose output is added to that of the convolution.

    There is no activation after the addition.

    Args:
        unit: builds a recurrent unit from its number of channels and t.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        t: int,
        unit: Callable[[int, int], nn.Module] = RecurrentUnit,
    ) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.units = nn.Sequential(unit(out_channels, t), unit(out_channels, t))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H, W)."""
        x = self.project(x)
        out: Tensor = x + self.units(x)
        return out


class Up(nn.Module):
    """Double the size by nearest-neighbour upsampling, then convolution, BatchNorm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', 2H, 2W)."""
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2.0))))


class R2UNet(nn.Module):
    """U-Net with recurrent residual blocks: 39,092,693 parameters at 21 classes for every t.

    H and W must be multiples of 16. The document enet-r2unet-pspnet reports 30.00 M parameters,
    which cannot be derived from its code; this is the published architecture. The paper does not
    say how weights are initialised; we use torch's default.

    Args:
        num_classes: K.
        t: how often each unit applies its convolution again.
    """

    input_multiple = 16

    def __init__(self, num_classes: int, t: int = 2) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([RRCNNBlock(a, b, t) for a, b in pairwise((3, *WIDTHS))])
        decoder = list(pairwise(WIDTHS[::-1]))
        self.ups = nn.ModuleList([Up(a, b) for a, b in decoder])
        self.decoder = nn.ModuleList([RRCNNBlock(2 * b, b, t) for _, b in decoder])
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        x: Tensor = self.encoder[0](image)
        skips: list[Tensor] = []
        for block in self.encoder[1:]:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def build(num_classes: int, t: int = 2) -> nn.Module:
    """Build R2U-Net."""
    return R2UNet(num_classes, t)
