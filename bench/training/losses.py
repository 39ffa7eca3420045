"""Losses with separate sums and weights, so that the loss of a step is one mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.datasets.base import IGNORE_INDEX
from bench.datasets.class_weights import ClassCounts, class_weights
from bench.errors import UserError
from bench.suite.loss import CrossEntropy, Dice, Focal, LossSpec, OneLoss, Sum, terms


class Term(Protocol):
    """A loss: a sum, divided by a weight over the same pixels or images."""

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Add up the losses of float logits (N, K, H, W) against target (N, H, W) int64."""

    def weight(self, target: Tensor) -> Tensor:
        """Return what the sum is divided by; 0 if nothing is valid."""


@dataclass(frozen=True)
class PixelCrossEntropy:
    """Cross-entropy over valid pixels; class_weights are (K,) float32."""

    class_weights: Tensor | None
    label_smoothing: float

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Add up the pixels' losses."""
        # torch's sum over pixels is not deterministic on a GPU, and of flattened pixels it runs on
        # a single multiprocessor.
        apart = logits.is_cuda and torch.are_deterministic_algorithms_enabled()
        loss = F.cross_entropy(
            logits,
            target,
            weight=self.class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none" if apart else "sum",
        )
        return loss.sum() if apart else loss

    def weight(self, target: Tensor) -> Tensor:
        """Add up the weights of the valid pixels: their number if classes have no weights."""
        return _pixel_weights(target, self.class_weights).sum()


@dataclass(frozen=True)
class PixelFocal:
    """Focal loss over valid pixels; class_weights are (K,) float32."""

    class_weights: Tensor | None
    gamma: float

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Add up the pixels' losses."""
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
        # 1 - p of the true class, kept above 0 so that its power has a gradient.
        missed = (-torch.expm1(-loss)).clamp_min(torch.finfo(loss.dtype).eps)
        return (missed**self.gamma * loss * _pixel_weights(target, self.class_weights)).sum()

    def weight(self, target: Tensor) -> Tensor:
        """Add up the weights of the valid pixels."""
        return _pixel_weights(target, self.class_weights).sum()


@dataclass(frozen=True)
class ImageDice:
    """One minus soft Dice of the classes in each image's truth, averaged over images."""

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Add up the images' losses; an image without a valid pixel adds nothing."""
        classes = torch.arange(logits.shape[1], device=target.device).view(1, -1, 1, 1)
        truth = target[:, None] == classes
        valid = (target != IGNORE_INDEX)[:, None]
        p = logits.softmax(1) * valid
        num_true = truth.sum((2, 3))
        dice = 2 * (p * truth).sum((2, 3)) / (p.sum((2, 3)) + num_true).clamp_min(1)
        present = num_true > 0
        mean_dice = (dice * present).sum(1) / present.sum(1).clamp_min(1)
        return (present.any(1) * (1 - mean_dice)).sum()

    def weight(self, target: Tensor) -> Tensor:
        """Count the images with a valid pixel."""
        return (target != IGNORE_INDEX).flatten(1).any(1).sum()


def _pixel_weights(target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the weight of every pixel, 0 for void."""
    valid = target != IGNORE_INDEX
    if class_weights is None:
        return valid
    return class_weights[target.where(valid, 0)].mul(valid)


@dataclass(frozen=True)
class Loss:
    """One or several terms, each with its factor.

    The loss of a step is `mean(totals, weights)`, both over all its micro-batches.
    """

    terms: tuple[tuple[float, Term], ...]
    aux_weight: float  # of each auxiliary head

    def totals(self, logits: Tensor | Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Add up each term of logits (N, K, H, W) against target (N, H, W) int64: (terms,).

        If there are several heads, all except "out" are auxiliary.
        """
        if isinstance(logits, Tensor):
            return self._of_one_head(logits, target)
        totals = self._of_one_head(logits["out"], target)
        for name, head in logits.items():
            if name != "out":
                totals = totals + self.aux_weight * self._of_one_head(head, target)
        return totals

    def _of_one_head(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = logits.float()
        return torch.stack([factor * term.total(logits, target) for factor, term in self.terms])

    def weights(self, target: Tensor) -> Tensor:
        """Return what each term is divided by: (terms,)."""
        return torch.stack([term.weight(target).float() for _, term in self.terms])


def mean(totals: Tensor, weights: Tensor) -> Tensor:
    """Divide each term by its weight and add up; zero, with a gradient, if nothing is valid."""
    return (totals / weights.where(weights > 0, 1)).sum()


def build_loss(spec: LossSpec, num_classes: int, device: torch.device, aux_weight: float) -> Loss:
    """Return the recipe's loss, whose class weights are numbers; see `with_counted_weights`.

    Raises:
        UserError: if there is not one class weight per class.
    """
    built = tuple((term.weight, _build_term(term, num_classes, device)) for term in terms(spec))
    return Loss(built, aux_weight)


def _build_term(spec: OneLoss, num_classes: int, device: torch.device) -> Term:
    if isinstance(spec, Dice):
        return ImageDice()
    given = spec.class_weights
    assert not isinstance(given, str)
    if given is not None and len(given) != num_classes:
        raise UserError(
            f"loss.class_weights has {len(given)} numbers; the dataset has {num_classes} classes."
        )
    weights = None if given is None else torch.tensor(given, device=device)
    if isinstance(spec, Focal):
        return PixelFocal(weights, spec.gamma)
    return PixelCrossEntropy(weights, spec.label_smoothing)


def with_counted_weights(spec: LossSpec, count: Callable[[], ClassCounts]) -> LossSpec:
    """Return the loss with class weights as numbers; `count` is called only if a rule needs it."""
    if isinstance(spec, Sum):
        return spec.model_copy(update={"terms": tuple(_counted(t, count) for t in spec.terms)})
    return _counted(spec, count)


def _counted(spec: OneLoss, count: Callable[[], ClassCounts]) -> OneLoss:
    if not isinstance(spec, CrossEntropy | Focal) or not isinstance(spec.class_weights, str):
        return spec
    weights = tuple(class_weights(spec.class_weights, count()).tolist())
    return spec.model_copy(update={"class_weights": weights})
