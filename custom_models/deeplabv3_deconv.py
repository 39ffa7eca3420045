"""The transfer network of a student report on IDD (Ai, Qiao and Zhang 2021): DeepLabv3 (Chen,
Papandreou, Schroff and Adam 2017, arXiv 1706.05587) with ResNet-101 and four transposed
convolutions on top.
"""

from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3_ResNet101_Weights, deeplabv3_resnet101
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from custom_models.fcn import deconvolutions
from custom_models.initialisation import xavier

WIDTHS = (512, 256, 128, 64, 32)
NUM_COCO = 21  # classes of the auxiliary head, which the report kept unchanged


class DeepLabV3Deconv(nn.Module):
    """A frozen DeepLabv3-R101 with a new head: 62,691,440 parameters at 27 classes, 17,826,075 of
    them trainable.

    The head is DeepLab's own up to its 512 channels, then four transposed convolutions, each with
    ReLU and BatchNorm, and a 1x1 classifier. They upsample from stride 8 to twice the input's
    size; torchvision's bilinear resizing halves that. The frozen auxiliary head is computed but
    not used, as in the report's network, so its cost counts. Frozen parts also keep their
    BatchNorm statistics. Takes images of any size, but cannot train on batches of one image,
    since a BatchNorm follows a 1x1 map. New layers start with Xavier initialisation, as the
    report says.

    Args:
        num_classes: K.
        freeze_encoder: whether the encoder is frozen; the auxiliary head always is.
        pretrained: "coco" for torchvision's weights, which are downloaded.

    Raises:
        ValueError: if `pretrained` is anything else.
    """

    input_multiple = 1

    def __init__(
        self,
        num_classes: int,
        freeze_encoder: bool = True,
        pretrained: Literal["coco"] | None = None,
    ) -> None:
        super().__init__()
        if pretrained not in (None, "coco"):
            raise ValueError(f"DeepLabv3 has weights 'coco', not {pretrained!r}")
        weights = DeepLabV3_ResNet101_Weights.DEFAULT if pretrained else None
        self.net: Any = deeplabv3_resnet101(
            weights=weights, weights_backbone=None, num_classes=NUM_COCO, aux_loss=True
        )
        self.net.classifier = nn.Sequential(
            DeepLabHead(2048, WIDTHS[0]),
            *deconvolutions(WIDTHS),
            nn.Conv2d(WIDTHS[-1], num_classes, 1),
        )
        xavier(self.net.classifier)
        self.frozen = freeze_encoder
        self.encoder.requires_grad_(not freeze_encoder)
        self.net.aux_classifier.requires_grad_(False)
        self.train()

    @property
    def encoder(self) -> nn.Module:
        """The ResNet-101 backbone."""
        backbone: nn.Module = self.net.backbone
        return backbone

    def train(self, mode: bool = True) -> "DeepLabV3Deconv":
        """Set training or eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        self.net.aux_classifier.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        logits: Tensor = self.net(image)["out"]
        return logits


def build(
    num_classes: int, freeze_encoder: bool = True, pretrained: Literal["coco"] | None = None
) -> nn.Module:
    """Build DeepLabv3 with transposed convolutions on top."""
    return DeepLabV3Deconv(num_classes, freeze_encoder, pretrained)
