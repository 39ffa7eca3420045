"""PSPNet (Zhao, Shi, Qi, Wang and Jia 2017, arXiv 1612.01105) with ResNet-50."""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_models.encoder import timm_encoder

BINS = (1, 2, 3, 6)
WIDTH = 512  # of each level of the pyramid, and of the head


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Return a bias-free convolution that keeps the size, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class PyramidPooling(nn.Module):
    """Concatenate a map with its averages over 1, 4, 9 and 36 regions, upsampled to its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList([conv_norm_relu(channels, WIDTH, 1) for _ in BINS])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + 4 x 512, H, W)."""
        levels = [x]
        for bins, level in zip(BINS, self.levels, strict=True):
            levels += [_resized(level(F.adaptive_avg_pool2d(x, bins)), x.shape[-2:])]
        return torch.cat(levels, dim=1)


class Head(nn.Sequential):
    """A 3x3 convolution, dropout and the classifier."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__(
            conv_norm_relu(in_channels, channels, 3),
            nn.Dropout2d(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )


class PSPNet(nn.Module):
    """The authors' network: 49,081,578 parameters at 21 classes, 46,716,373 without the auxiliary
    head.

    The encoder starts with three 3x3 convolutions, as the authors' does. Every block of its last
    two stages is dilated, by 2 and by 4, so that its output stride is 8. In training, the
    auxiliary head on the third stage returns logits too, whose loss the paper adds with weight
    0.4. Takes images of any size; the paper's sizes are 8 n + 1, which suit corner-aligned
    upsampling best. It cannot train on batches of one image, since a BatchNorm follows a 1x1 map.

    The network of enet-r2unet-pspnet has 512 channels in the auxiliary head (51,444,710
    parameters at 19 classes).

    Args:
        num_classes: K.
        encoder: a timm ResNet with bottlenecks. resnet50s has the authors' stem; resnet50 has a
            7x7 convolution, and its weights are easier to get.
        aux_channels: channels of the auxiliary head; None for no such head.
        pretrained: "imagenet", or a tag of timm's weights; they are downloaded.

    Raises:
        ValueError: if the encoder is not such a ResNet, or `aux_channels` is below 1.
    """

    input_multiple = 1

    def __init__(
        self,
        num_classes: int,
        encoder: str = "resnet50s",
        aux_channels: int | None = 256,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        if not timm.models.is_model_in_modules(encoder, ("resnet",)):
            raise ValueError(f"{encoder} is no ResNet of timm")
        if aux_channels is not None and aux_channels < 1:
            raise ValueError(f"aux_channels is 1 or more, or null, not {aux_channels}")
        self.encoder = timm_encoder(encoder, pretrained, out_indices=(3, 4), output_stride=8)
        for stage, dilation in (("layer3", 2), ("layer4", 4)):
            for block in self.encoder[stage]:  # timm dilates a stage's first block less
                if not hasattr(block, "conv3"):
                    raise ValueError(f"{encoder} has no bottlenecks; resnet50 has")
                block.conv2.dilation = block.conv2.padding = (dilation, dilation)
        third, fourth = self.encoder.feature_info.channels()
        self.pyramid = PyramidPooling(fourth)
        self.head = Head(fourth + len(BINS) * WIDTH, WIDTH, num_classes)
        self.aux = None if aux_channels is None else Head(third, aux_channels, num_classes)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Map (N, 3, H, W) to logits (N, K, H, W); in training, to the logits of both heads."""
        size = image.shape[-2:]
        third, fourth = self.encoder(image)
        logits = _resized(self.head(self.pyramid(fourth)), size)
        if self.aux is None or not self.training:
            return logits
        return {"out": logits, "aux": _resized(self.aux(third), size)}


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def build(
    num_classes: int,
    encoder: str = "resnet50s",
    aux_channels: int | None = 256,
    pretrained: str | None = None,
) -> nn.Module:
    """Build PSPNet."""
    return PSPNet(num_classes, encoder, aux_channels, pretrained)
