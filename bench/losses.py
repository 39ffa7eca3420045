"""Losses whose sum and weight are kept apart, so that a step's loss is one mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.class_weights import ClassCounts, class_weights
from bench.data import IGNORE_INDEX
from bench.errors import UserError
from bench.recipe import CrossEntropy


@dataclass(frozen=True)
class PixelLoss:
    """Cross-entropy over valid pixels.

    The loss of a step is `total / weight`, both over all its micro-batches; see `mean`.
    """

    class_weights: Tensor | None  # (K,) float32
    label_smoothing: float
    aux_weight: float  # of each auxiliary head

    def total(self, logits: Tensor | Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Add up the losses of logits (N, K, H, W) against target (N, H, W) int64.

        Of several heads, all but "out" are auxiliary.
        """
        if isinstance(logits, Tensor):
            return self._of_one_head(logits, target)
        total = self._of_one_head(logits["out"], target)
        for name, head in logits.items():
            if name != "out":
                total = total + self.aux_weight * self._of_one_head(head, target)
        return total

    def _of_one_head(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(),
            target,
            weight=self.class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    def weight(self, target: Tensor) -> Tensor:
        """Add up the weights of the valid pixels: their number where classes have no weights."""
        valid = target != IGNORE_INDEX
        if self.class_weights is None:
            return valid.sum()
        return self.class_weights[target.where(valid, 0)].mul(valid).sum()


def mean(total: Tensor, weight: Tensor) -> Tensor:
    """Divide a summed loss by its weight; zero, with a gradient, where nothing is valid."""
    return total / weight.where(weight > 0, 1)


def build_loss(
    spec: CrossEntropy, num_classes: int, device: torch.device, aux_weight: float
) -> PixelLoss:
    """Return the recipe's loss, whose class weights are numbers; see `numbered`.

    Raises:
        UserError: where the class weights are not one a class.
    """
    given = spec.class_weights
    assert not isinstance(given, str)
    if given is None:
        return PixelLoss(None, spec.label_smoothing, aux_weight)
    if len(given) != num_classes:
        raise UserError(
            f"loss.class_weights has {len(given)} numbers; the dataset has {num_classes} classes."
        )
    return PixelLoss(torch.tensor(given, device=device), spec.label_smoothing, aux_weight)


def numbered(spec: CrossEntropy, count: Callable[[], ClassCounts]) -> CrossEntropy:
    """Return the loss with its class weights as numbers; pixels are counted where a rule asks."""
    rule = spec.class_weights
    if not isinstance(rule, str):
        return spec
    weights = tuple(class_weights(rule, count()).tolist())
    return spec.model_copy(update={"class_weights": weights})
