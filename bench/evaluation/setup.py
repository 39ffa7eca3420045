"""How a model runs here: what training and evaluation share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.machine.numerics import Numerics


class Loss(Protocol):
    """A loss whose sums and weights are kept apart, so that means of parts can be joined."""

    def totals(self, logits: Tensor | Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Add up each term of logits (N, K, H, W) against target (N, H, W) int64: (terms,)."""

    def weights(self, target: Tensor) -> Tensor:
        """Return what each term is divided by: (terms,)."""


@dataclass(frozen=True)
class Setup:
    """How a model runs here.

    beat: called after each batch; what it raises stops the work.
    """

    device: torch.device
    numerics: Numerics
    num_classes: int
    loss_fn: Loss
    beat: Callable[[], None] = lambda: None
