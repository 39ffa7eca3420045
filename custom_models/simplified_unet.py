"""SimplifiedUNet of a student report on PASCAL VOC 2007 (Lim, Chen, Wan and Wang 2024, "Fully
Convolutional Network for Semantic Segmentation", table 1).
"""

from itertools import pairwise

from torch import Tensor, nn

from custom_models.initialisation import xavier

WIDTHS = (64, 128, 256, 512)


class SimplifiedUNet(nn.Module):
    """U-Net's shape without its skips: 3,015,509 parameters at 21 classes.

    Three times a convolution and a max-pool, then a convolution, then three times an
    up-convolution and a convolution. ReLU follows each convolution; there is no BatchNorm.
    Weights start with Xavier initialisation, as the report says. H and W must be multiples of 8.
    """

    input_multiple = 8

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        down: list[nn.Module] = []
        for in_channels, out_channels in pairwise((3, *WIDTHS)):
            down += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
            down += [nn.MaxPool2d(2)]
        up: list[nn.Module] = []
        for in_channels, out_channels in pairwise(WIDTHS[::-1]):
            up += [nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)]
            up += [nn.ReLU(inplace=True)]
            up += [nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*down[:-1])  # no pool below the bottleneck
        self.decoder = nn.Sequential(*up)
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        logits: Tensor = self.head(self.decoder(self.encoder(image)))
        return logits


def build(num_classes: int) -> nn.Module:
    """Build SimplifiedUNet."""
    net = SimplifiedUNet(num_classes)
    xavier(net)
    return net
