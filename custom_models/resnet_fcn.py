"""A ResNet (He, Zhang, Ren and Sun 2016, arXiv 1512.03385) with plain transposed convolutions on
top: the transfer networks of two student reports on PASCAL VOC 2007, fcn-resnet50-voc2007 (table
2, ResNet-50) and darrennet-voc2007 (table 5, ResNet-34).
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from custom_models.encoder import timm_encoder
from custom_models.fcn import deconvolutions
from custom_models.initialisation import xavier

BASELINE = (512, 256, 128, 64, 32)  # widths of the FCN baseline's decoder
REDUCED = (256, 128, 64, 64)  # widths after 1x1 convolutions to 1024 and 512 channels


class ResNetFCN(nn.Module):
    """An encoder of stride 32, a decoder without skips, a 1x1 classifier.

    27,718,293 parameters with ResNet-50 at 21 classes, 4,210,261 of them in the decoder;
    25,214,357 with ResNet-34. H and W must be multiples of 32.

    An encoder with more than 512 channels at its end gets the decoder of the ResNet-50 report:
    two 1x1 convolutions, four transposed ones with BatchNorm after the last two only, and
    bilinear upsampling of the logits by 2. Others get the FCN baseline's five transposed
    convolutions, each with ReLU and BatchNorm. New layers start with Xavier initialisation, as
    fcn-resnet50-voc2007 says. A frozen encoder also keeps its BatchNorm statistics.

    Args:
        num_classes: K.
        encoder: any timm network whose last features have stride 32.
        freeze_encoder: whether the encoder is frozen.
        pretrained: "imagenet", or a tag of timm's weights; they are downloaded.

    Raises:
        ValueError: if the encoder's stride is not 32.
    """

    input_multiple = 32

    def __init__(
        self,
        num_classes: int,
        encoder: str = "resnet50",
        freeze_encoder: bool = False,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = timm_encoder(encoder, pretrained, out_indices=(-1,))
        features = self.encoder.feature_info
        [channels], [stride] = features.channels(), features.reduction()
        if stride != 32:
            raise ValueError(f"{encoder} ends at stride {stride}; this decoder is for stride 32")
        if channels > BASELINE[0]:
            layers, width = _reducing(channels), REDUCED[-1]
        else:
            layers, width = deconvolutions((channels, *BASELINE)), BASELINE[-1]
        self.decoder = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, num_classes, 1)
        xavier(self.decoder)
        xavier(self.head)
        self.frozen = freeze_encoder
        self.encoder.requires_grad_(not freeze_encoder)
        self.train()

    def train(self, mode: bool = True) -> "ResNetFCN":
        """Set training or eval mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        [x] = self.encoder(image)
        logits: Tensor = self.head(self.decoder(x))
        if logits.shape[-2:] == image.shape[-2:]:
            return logits
        return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)


def _reducing(channels: int) -> list[nn.Module]:
    """Return 1x1 convolutions to 512 channels, then transposed ones."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise((channels, 1024, 512)):
        layers += [nn.Conv2d(in_channels, out_channels, 1), nn.ReLU(inplace=True)]
    for number, (in_channels, out_channels) in enumerate(pairwise((512, *REDUCED))):
        deconv, relu, norm = deconvolutions((in_channels, out_channels))
        layers += [deconv, relu, norm] if number >= 2 else [deconv, relu]
    return layers


def build(
    num_classes: int,
    encoder: str = "resnet50",
    freeze_encoder: bool = False,
    pretrained: str | None = None,
) -> nn.Module:
    """Build a ResNet, or another timm encoder, with plain transposed convolutions on top."""
    return ResNetFCN(num_classes, encoder, freeze_encoder, pretrained)
