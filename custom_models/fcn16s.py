"""FCN-16s (Long, Shelhamer and Darrell 2015, arXiv 1411.4038)."""

from typing import Literal

from torch import Tensor, nn

from custom_models.fcn32s import VGG16, begin, crop, score, upsampling


class FCN16s(nn.Module):
    """FCN-32s with a second prediction, from pool4: 134,815,994 parameters at 21 classes.

    Takes images of any size. Crops use the authors' fixed offsets, 5 for the score of pool4 and
    27 for the image; everything else is as in `fcn32s`. The authors start from FCN-32s weights.

    Args:
        num_classes: K.
        learned: whether to train the upsampling, which starts as bilinear.
    """

    input_multiple = 1

    def __init__(self, num_classes: int, learned: bool = False) -> None:
        super().__init__()
        self.encoder = VGG16()
        self.score_fc7 = score(4096, num_classes)
        self.upscore2 = upsampling(num_classes, 2, learned)
        self.score_pool4 = score(512, num_classes)
        self.upscore16 = upsampling(num_classes, 16, learned)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        _, pool4, fc7 = self.encoder(image)
        x = self.upscore2(self.score_fc7(fc7))
        x = x + crop(self.score_pool4(pool4), 5, x)
        return crop(self.upscore16(x), 27, image)


def build(
    num_classes: int, learned: bool = False, pretrained: Literal["imagenet"] | None = None
) -> nn.Module:
    """Build FCN-16s; `pretrained="imagenet"` downloads the weights of VGG-16."""
    net = FCN16s(num_classes, learned)
    begin(net.encoder, pretrained)
    return net
