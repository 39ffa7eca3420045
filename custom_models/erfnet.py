"""ERFNet (Romera, Alvarez, Bergasa and Arroyo 2018, doi 10.1109/TITS.2017.2750080)."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # of every BatchNorm, as in the authors' code
Head = Literal["full", "eighth", "classification"]
Row = tuple[int, float, int]  # of a block: channels, dropout, dilation

STAGE_1: tuple[Row, ...] = ((64, 0.03, 1),) * 5
STAGE_2: tuple[Row, ...] = tuple((128, 0.3, dilation) for dilation in (2, 4, 8, 16)) * 2


class Downsampler(nn.Module):
    """Halve the size: a strided 3x3 convolution beside a 2x2 max-pool, concatenated."""

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
    """Double the size by a transposed 3x3 convolution."""

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
    """Stride 8, 128 channels; with a 1x1 head for training on labels of 1/8 size.

    Args:
        num_classes: of the head; None for none.
        dropout: in the place of the authors' rates.
    """

    not_pretrained = ("output_conv.",)  # a classifier's weights have none

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
        """Name the weights of the authors' encoder, trained with a classifier, as ours are."""
        return {key.removeprefix("features."): value for key, value in state.items()}


class Decoder(nn.Module):
    """Stride 8 back to 1."""

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
    """The authors' network: 2,067,030 parameters at 21 classes, 2,709 of them in a head that only
    the first of the two stages trains. H and W are multiples of 8.

    The authors train the encoder with its own head on labels of 1/8 size, then the whole from
    that encoder; each for 150 epochs with Adam, 5e-4, weight decay 1e-4, poly 0.9 and batch 6. The
    keys are those of their PyTorch code, so that their weight files fit.
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
    """The first stage: logits at 1/8 of the input's size."""

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
    """The encoder under a classifier of whole images, for pretraining on ImageNet elsewhere."""

    input_multiple = 16

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(None)
        self.linear = nn.Linear(128, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to scores of whole images (N, K)."""
        x = F.adaptive_avg_pool2d(F.max_pool2d(self.encoder(image), 2), 1)
        scores: Tensor = self.linear(x.flatten(1))
        return scores


HEADS = {"full": ERFNet, "eighth": ERFNetEncoder, "classification": ERFNetClassifier}


def build(num_classes: int, head: Head = "full") -> nn.Module:
    """Build ERFNet, or its encoder under one of the two heads that it is trained with first.

    Raises:
        ValueError: for another head.
    """
    if head not in HEADS:
        raise ValueError(f"head is one of {', '.join(HEADS)}, not {head!r}")
    return HEADS[head](num_classes)
