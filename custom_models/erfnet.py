"""ERFNet (Romera, Alvarez, Bergasa and Arroyo 2018, doi 10.1109/TITS.2017.2750080)."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # for every BatchNorm, as in the authors' code
Head = Literal["full", "eighth", "classification"]
Row = tuple[int, float, int]  # a block's channels, dropout and dilation

STAGE_1: tuple[Row, ...] = ((64, 0.03, 1),) * 5
STAGE_2: tuple[Row, ...] = tuple((128, 0.3, dilation) for dilation in (2, 4, 8, 16)) * 2


class Downsampler(nn.Module):
    """Halve the size: a strided 3x3 convolution concatenated with a 2x2 max-pool."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/2, W/2)."""
        return F.relu(self.bn(torch.cat([self.conv(x), self.pool(x)], dim=1)))


class NonBottleneck1d(nn.Module):
    """Two pairs of 3x1 and 1x3 convolutions, the second pair dilated, added to the input."""

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=EPS)
        self.conv3x1_2 = nn.Conv2d(
            channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
        )
        self.conv1x3_2 = nn.Conv2d(
            channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)
        )
        self.bn2 = nn.BatchNorm2d(channels, eps=EPS)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, C, H, W)."""
        y = F.relu(self.conv3x1_1(x))
        y = F.relu(self.bn1(self.conv1x3_1(y)))
        y = F.relu(self.conv3x1_2(y))
        y = self.dropout(self.bn2(self.conv1x3_2(y)))
        return F.relu(x + y)


class Upsampler(nn.Module):
    """Double the size with a transposed 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', 2H, 2W)."""
        return F.relu(self.bn(self.conv(x)))


class Encoder(nn.Module):
    """The encoder: stride 8, 128 channels; optionally a 1x1 head to train on 1/8-size labels.

    Args:
        num_classes: of the head; None for no head.
        dropout: replaces the authors' rates.
    """

    not_pretrained = ("output_conv.",)  # missing from a classifier's weights

    def __init__(self, num_classes: int | None, dropout: float | None = None) -> None:
        super().__init__()
        self.initial_block = Downsampler(3, 16)
        self.layers = nn.ModuleList(
            [
                Downsampler(16, 64),
                *_blocks(STAGE_1, dropout),
                Downsampler(64, 128),
                *_blocks(STAGE_2, dropout),
            ]
        )
        self.output_conv = None if num_classes is None else nn.Conv2d(128, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 128, H/8, W/8)."""
        x: Tensor = self.initial_block(image)
        for layer in self.layers:
            x = layer(x)
        return x

    @staticmethod
    def adapted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of the authors' encoder, trained as a classifier, to our keys."""
        return {key.removeprefix("features."): value for key, value in state.items()}


class Decoder(nn.Module):
    """The decoder: from stride 8 back to 1."""

    def __init__(self, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Upsampler(128, 64),
                *_blocks(((64, dropout, 1),) * 2),
                Upsampler(64, 16),
                *_blocks(((16, dropout, 1),) * 2),
            ]
        )
        self.output_conv = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 128, H, W) to logits (N, K, 8H, 8W)."""
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.output_conv(x)
        return logits


def _blocks(rows: tuple[Row, ...], dropout: float | None = None) -> list[NonBottleneck1d]:
    return [
        NonBottleneck1d(channels, rate if dropout is None else dropout, dilation)
        for channels, rate, dilation in rows
    ]


class ERFNet(nn.Module):
    """The authors' network: 2,067,030 parameters at 21 classes, 2,709 of them in a head that is
    trained only in the first of two stages. H and W must be multiples of 8.

    The authors train the encoder with its own head on 1/8-size labels, then the whole network
    from that encoder; each for 150 epochs with Adam, learning rate 5e-4, weight decay 1e-4, poly
    0.9 and batch size 6. The keys match their PyTorch code, so their weight files can be loaded.
    """

    input_multiple = 8

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(num_classes)
        self.decoder = Decoder(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


class ERFNetEncoder(nn.Module):
    """The network of the first stage: logits at 1/8 of the input's size."""

    input_multiple = 8
    output_stride = 8

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H/8, W/8)."""
        assert self.encoder.output_conv is not None
        logits: Tensor = self.encoder.output_conv(self.encoder(image))
        return logits


class ERFNetClassifier(nn.Module):
    """The encoder with an image classifier on top, to pretrain on ImageNet outside this project."""

    input_multiple = 16

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(None)
        self.linear = nn.Linear(128, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to one row of class scores per image, (N, K)."""
        x = F.adaptive_avg_pool2d(F.max_pool2d(self.encoder(image), 2), 1)
        scores: Tensor = self.linear(x.flatten(1))
        return scores


HEADS = {"full": ERFNet, "eighth": ERFNetEncoder, "classification": ERFNetClassifier}


def build(num_classes: int, head: Head = "full") -> nn.Module:
    """Build ERFNet, or its encoder with one of the two heads used to train it first.

    Raises:
        ValueError: if `head` is unknown.
    """
    if head not in HEADS:
        raise ValueError(f"head is one of {', '.join(HEADS)}, not {head!r}")
    return HEADS[head](num_classes)
