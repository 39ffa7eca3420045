"""ENet (Paszke, Chaurasia, Kim and Culurciello 2016, arXiv 1606.02147)."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # for every BatchNorm, as in the authors' Torch code
Kind = Literal["regular", "dilated", "asymmetric"]

STAGE_2: tuple[tuple[Kind, int], ...] = (
    ("regular", 1),
    ("dilated", 2),
    ("asymmetric", 5),
    ("dilated", 4),
    ("regular", 1),
    ("dilated", 8),
    ("asymmetric", 5),
    ("dilated", 16),
)


class Initial(nn.Module):
    """Strided 3x3 convolution to 13 channels, concatenated with a max-pool of the image: 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16, eps=EPS)
        self.activation = nn.PReLU(16)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 16, H/2, W/2)."""
        x = torch.cat([self.conv(image), F.max_pool2d(image, 2)], dim=1)
        out: Tensor = self.activation(self.norm(x))
        return out


class Bottleneck(nn.Module):
    """Project to a quarter of the channels, convolve, expand, drop channels, add the input.

    Args:
        size: kernel size if asymmetric, else the dilation of a 3x3 kernel.
        activation: builds the activation for a number of channels; ReLU in the decoder.
    """

    def __init__(
        self,
        channels: int,
        kind: Kind = "regular",
        size: int = 1,
        dropout: float = 0.0,
        activation: Callable[[int], nn.Module] = nn.PReLU,
    ) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner, eps=EPS),
            activation(inner),
            *_middle(inner, kind, size),
            nn.BatchNorm2d(inner, eps=EPS),
            activation(inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels, eps=EPS),
            nn.Dropout2d(dropout),
        )
        self.activation = activation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, C, H, W)."""
        out: Tensor = self.activation(x + self.branch(x))
        return out


def _middle(inner: int, kind: Kind, size: int) -> list[nn.Module]:
    if kind == "asymmetric":  # 1 x size, then size x 1, with nothing in between
        half = size // 2
        return [
            nn.Conv2d(inner, inner, (1, size), padding=(0, half), bias=False),
            nn.Conv2d(inner, inner, (size, 1), padding=(half, 0)),
        ]
    return [nn.Conv2d(inner, inner, 3, padding=size, dilation=size)]


class Down(nn.Module):
    """Halve the size: a strided 2x2 projection, added to a max-pool that keeps its indices."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inner = out_channels // 4
        self.extra = out_channels - in_channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 2, stride=2, bias=False),
            nn.BatchNorm2d(inner, eps=EPS),
            nn.PReLU(inner),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.BatchNorm2d(inner, eps=EPS),
            nn.PReLU(inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=EPS),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to (N, C', H/2, W/2) and the indices (N, C, H/2, W/2) of the pool."""
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        shortcut = F.pad(pooled, (0, 0, 0, 0, 0, self.extra))
        return self.activation(shortcut + self.branch(x)), indices


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Put values (N, C, H, W) back where a 2x2 max-pool took them from: (N, C, 2H, 2W).

    All other pixels are 0. torch's max_unpool2d has no deterministic form; a scatter gives the
    same result, because no two pooled values come from the same place.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return F.max_unpool2d(x, indices, [2, 2])
    num, channels, height, width = x.shape
    places = x.new_zeros(num, channels, 4 * height * width)
    scattered = places.scatter(2, indices.flatten(2), x.flatten(2))
    return scattered.view(num, channels, 2 * height, 2 * width)


class Up(nn.Module):
    """Double the size: a transposed convolution, added to an unpool by the indices of `Down`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=EPS),
        )
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner, eps=EPS),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(inner, eps=EPS),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=EPS),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', 2H, 2W); `indices` (N, C', H, W) come from `Down`."""
        shortcut = unpool(self.shortcut(x), indices)
        out: Tensor = self.activation(shortcut + self.branch(x))
        return out


class ENet(nn.Module):
    """The authors' network: 364,441 parameters at 21 classes.

    Projections and expansions have no bias; the middle convolutions do. There is no activation
    between the last BatchNorm of a branch and the addition. The encoder uses PReLU and dropout,
    the decoder ReLU and no dropout. H and W must be multiples of 8.
    """

    input_multiple = 8

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.initial = Initial()
        self.down1 = Down(16, 64, 0.01)
        self.stage1 = nn.Sequential(*[Bottleneck(64, "regular", 1, 0.01) for _ in range(4)])
        self.down2 = Down(64, 128, 0.1)
        self.stage2 = nn.Sequential(*[Bottleneck(128, *row, 0.1) for row in STAGE_2])
        self.stage3 = nn.Sequential(*[Bottleneck(128, *row, 0.1) for row in STAGE_2])
        self.up4 = Up(128, 64)
        self.stage4 = nn.Sequential(*[Bottleneck(64, activation=_relu) for _ in range(2)])
        self.up5 = Up(64, 16)
        self.stage5 = Bottleneck(16, activation=_relu)
        self.head = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        x, indices1 = self.down1(self.initial(image))
        x, indices2 = self.down2(self.stage1(x))
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, indices2))
        x = self.stage5(self.up5(x, indices1))
        logits: Tensor = self.head(x)
        return logits


def _relu(channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


def build(num_classes: int) -> nn.Module:
    """Build ENet."""
    return ENet(num_classes)
