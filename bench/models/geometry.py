"""Which image sizes a network takes, and which part of an image its logits cover."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.datasets.base import IGNORE_INDEX


@dataclass(frozen=True)
class Geometry:
    """Heights and widths of a network's input and of its logits, in pixels.

    Inputs are `remainder` more than a multiple of `multiple`, and at least `minimum`. The logits
    lack `margin` pixels on each side; if they lack any, images are mirrored at their edges. The
    logits are `stride` times coarser than the input.
    """

    multiple: int
    minimum: int
    remainder: int = 0
    margin: int = 0
    stride: int = 1

    def padded(self, size: int) -> int:
        """Return the smallest allowed height or width whose logits cover `size` pixels."""
        needed = max(self.minimum, size + 2 * self.margin)
        return needed + (self.remainder - needed) % self.multiple

    def logits_size(self, padded: int) -> int:
        """Return the height or width of the logits for an input of an allowed size."""
        return (padded - 2 * self.margin) // self.stride

    def fit(self, image: Tensor) -> Tensor:
        """Pad images (N, C, H, W) to an allowed size: with zeros, or mirrored for margins."""
        height, width = image.shape[-2:]
        if self.margin:
            rows = _mirrored(height, self.margin, self.padded(height), image.device)
            columns = _mirrored(width, self.margin, self.padded(width), image.device)
            return image[..., rows, :][..., columns]
        below, right = self.padded(height) - height, self.padded(width) - width
        return F.pad(image, (0, right, 0, below)) if below or right else image

    def cut(self, logits: Tensor, height: int, width: int, coarse: bool = False) -> Tensor:
        """Crop logits (N, K, ...) to an image of height x width.

        Args:
            coarse: keep coarse logits coarse, to match targets from `reduced`; otherwise they are
                upsampled bilinearly to one per pixel.
        """
        if self.stride > 1 and not coarse:
            logits = F.interpolate(
                logits, scale_factor=float(self.stride), mode="bilinear", align_corners=False
            )
        cell = self.stride if coarse else 1
        return logits[..., : -(-height // cell), : -(-width // cell)]

    def reduced(self, target: Tensor) -> Tensor:
        """Reduce targets (N, H, W) to the middle pixel of each cell of coarser logits."""
        if self.stride == 1:
            return target
        below, right = (-target.shape[-2] % self.stride, -target.shape[-1] % self.stride)
        padded = F.pad(target, (0, right, 0, below), value=IGNORE_INDEX)
        middle = self.stride // 2
        return padded[..., middle :: self.stride, middle :: self.stride]


def declared(net: nn.Module) -> Geometry | None:
    """Return what a network's attributes declare (see `custom_models`); None if nothing."""
    multiple = getattr(net, "input_multiple", None)
    if not isinstance(multiple, int):
        return None
    return Geometry(
        multiple,
        minimum=getattr(net, "input_minimum", multiple),
        remainder=getattr(net, "input_remainder", 0),
        margin=getattr(net, "output_margin", 0),
        stride=getattr(net, "output_stride", 1),
    )


def _mirrored(size: int, before: int, length: int, device: torch.device) -> Tensor:
    """Return indices of `length` pixels that start `before` pixels ahead of the first of `size`.

    The edge pixels are not repeated; small images are mirrored several times.
    """
    period = max(1, 2 * (size - 1))
    index = (torch.arange(length, device=device) - before) % period
    return torch.minimum(index, period - index) if size > 1 else index
