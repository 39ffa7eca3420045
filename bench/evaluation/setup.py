"""How a model runs: what training and evaluation share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.machine.numerics import Numerics
from bench.machine.world import ALONE, World


class Loss(Protocol):
    """A loss that returns sums and weights apart, so that batches can be averaged exactly."""

    def totals(self, logits: Tensor | Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Add up each term of logits (N, K, H, W) against target (N, H, W) int64: (terms,)."""

    def weights(self, target: Tensor) -> Tensor:
        """Return what each term is divided by: (terms,)."""


@dataclass(frozen=True)
class Setup:
    """How a model runs.

    beat: called after each batch; it stops the work by raising.
    world: the processes that share the work.
    """

    device: torch.device
    numerics: Numerics
    num_classes: int
    loss_fn: Loss
    beat: Callable[[], None] = lambda: None
    world: World = ALONE
