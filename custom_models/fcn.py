"""FCN baseline: five strided convolutions, five transposed ones, a 1x1 classifier."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from custom_models.initialisation import xavier

WIDTHS = (32, 64, 128, 256, 512)


class FCN(nn.Module):
    """The "FCN baseline" of three student reports: a plain encoder-decoder without skips, after
    Long et al. 2015 (arXiv 1411.4038).

    Each layer is convolution, ReLU, BatchNorm, in this order. 5,500,245 parameters at 21 classes.
    H and W must be multiples of 32. Weights start with Xavier initialisation, as the reports say.
    The reports put a softmax before a cross-entropy that applies one itself, so their loss cannot
    fall below 2.123; this network returns logits.

    Args:
        num_classes: K.
        direct_head: build the variant whose fifth transposed convolution goes straight to K
            channels, so that the classifier is K to K (5,493,645 parameters at 21 classes).
    """

    input_multiple = 32

    def __init__(self, num_classes: int, direct_head: bool = False) -> None:
        super().__init__()
        down = []
        for in_channels, out_channels in pairwise((3, *WIDTHS)):
            conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
            down += [conv, nn.ReLU(inplace=True), nn.BatchNorm2d(out_channels)]
        last = num_classes if direct_head else WIDTHS[0]
        up = deconvolutions((WIDTHS[-1], *WIDTHS[:0:-1], last))
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, nn.Conv2d(last, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


def deconvolutions(widths: Sequence[int]) -> list[nn.Module]:
    """Return transposed convolutions that double the size, each with ReLU and BatchNorm."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise(widths):
        deconv = nn.ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1
        )
        layers += [deconv, nn.ReLU(inplace=True), nn.BatchNorm2d(out_channels)]
    return layers


def build(num_classes: int, direct_head: bool = False) -> nn.Module:
    """Build the FCN baseline."""
    net = FCN(num_classes, direct_head)
    xavier(net)
    return net
