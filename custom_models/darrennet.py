"""DarrenNet (Szeto, Yu and Thomas 2024, "DarrenNet: Fully Convolutional Network for Semantic
Segmentation"), a report on PASCAL VOC 2007 without an arXiv number.
"""

from torch import Tensor, nn

from custom_models.erfnet import Decoder, Encoder
from custom_models.initialisation import kaiming

TRANSFER_DROPOUT = 0.1


class DarrenNet(nn.Module):
    """ERFNet without the head of its encoder: 2,064,321 parameters at 21 classes.

    The report mentions additional convolution layers and a higher dropout, but its layer table is
    that of ERFNet (5, 8, 2 and 2 blocks), and its released code has ERFNet's rates. We use those
    rates from scratch, and 0.1 everywhere with a pretrained encoder. Weights start with He
    initialisation, as the report says. H and W must be multiples of 8.

    Args:
        num_classes: K.
        dropout: rate in every block; None means ERFNet's: 0.03 and 0.3 in the encoder, 0 in the
            decoder.
    """

    input_multiple = 8

    def __init__(self, num_classes: int, dropout: float | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(None, dropout)
        self.decoder = Decoder(num_classes, dropout or 0.0)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


def build(num_classes: int, transfer: bool = False, dropout: float | None = None) -> nn.Module:
    """Build DarrenNet; `transfer` sets the dropout for a pretrained ERFNet encoder.

    The encoder's weights are loaded separately, from the authors' file or a trained ERFNet.
    """
    rate = TRANSFER_DROPOUT if transfer and dropout is None else dropout
    net = DarrenNet(num_classes, rate)
    kaiming(net)
    return net
