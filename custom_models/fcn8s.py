"""FCN-8s (Long, Shelhamer and Darrell 2015, arXiv 1411.4038)."""

from typing import Literal

from torch import Tensor, nn

from custom_models.fcn32s import VGG16, begin, crop, score, upsampling


class FCN8s(nn.Module):
    """Predictions from fc7, pool4 and pool3: 134,489,759 parameters at 21 classes.

    Takes images of any size. Crops use the authors' fixed offsets: 5 for the score of pool4, 9
    for that of pool3, 31 for the image. (The document fcn8s-voc crops the last one at the centre,
    which is 13 pixels off at 512.) Everything else is as in `fcn32s`.

    The staged variant starts from FCN-16s weights. The at-once variant multiplies the features of
    pool4 by 0.01 and those of pool3 by 0.0001 before it scores them. The authors train the staged
    variant with a learning rate of 1e-14, the other with 1e-10.

    Args:
        num_classes: K.
        at_once: build the variant that is trained in one go.
        learned: whether to train the upsampling, which starts as bilinear.
    """

    input_multiple = 1

    def __init__(self, num_classes: int, at_once: bool = False, learned: bool = False) -> None:
        super().__init__()
        self.scales = (0.01, 0.0001) if at_once else (1.0, 1.0)
        self.encoder = VGG16()
        self.score_fc7 = score(4096, num_classes)
        self.upscore2 = upsampling(num_classes, 2, learned)
        self.score_pool4 = score(512, num_classes)
        self.upscore_pool4 = upsampling(num_classes, 2, learned)
        self.score_pool3 = score(256, num_classes)
        self.upscore8 = upsampling(num_classes, 8, learned)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        pool3, pool4, fc7 = self.encoder(image)
        scale4, scale3 = self.scales
        x = self.upscore2(self.score_fc7(fc7))
        x = x + crop(self.score_pool4(pool4 * scale4), 5, x)
        x = self.upscore_pool4(x)
        x = x + crop(self.score_pool3(pool3 * scale3), 9, x)
        return crop(self.upscore8(x), 31, image)


def build(
    num_classes: int,
    at_once: bool = False,
    learned: bool = False,
    pretrained: Literal["imagenet"] | None = None,
) -> nn.Module:
    """Build FCN-8s; `pretrained="imagenet"` downloads the weights of VGG-16."""
    net = FCN8s(num_classes, at_once, learned)
    begin(net.encoder, pretrained)
    return net
