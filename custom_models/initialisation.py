"""Weight initialisation: the three schemes that the documents compare."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def xavier(net: nn.Module) -> None:
    """Draw weights uniformly from +-sqrt(6 / (fan in + fan out)); set biases to zero.

    Glorot and Bengio 2010.
    """
    for layer in _trainable(net):
        nn.init.xavier_uniform_(layer.weight)
        _clear_bias(layer)


def kaiming(net: nn.Module) -> None:
    """Draw weights from a normal distribution with variance 2 / fan in; set biases to zero.

    He et al. 2015, arXiv 1502.01852. For transposed convolutions torch swaps fan in and fan out,
    so they use the other mode.
    """
    for layer in _trainable(net):
        mode: Literal["fan_in", "fan_out"]
        mode = "fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in"
        nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
        _clear_bias(layer)


def default(net: nn.Module) -> None:
    """Draw weights and biases uniformly from +-sqrt(1 / fan in), with torch's fan in."""
    for layer in _trainable(net):
        layer.reset_parameters()


INITS: dict[str, Callable[[nn.Module], None]] = {
    "xavier": xavier,
    "kaiming": kaiming,
    "default": default,
}


def _trainable(net: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d | nn.Linear]:
    """List the convolutions and linear layers that are not frozen; frozen ones stay as they are."""
    layers = [m for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    return [layer for layer in layers if layer.weight.requires_grad]


def _clear_bias(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    if layer.bias is not None:
        with torch.no_grad():
            layer.bias.zero_()
