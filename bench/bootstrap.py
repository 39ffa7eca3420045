"""Whether two models can be told apart: a paired bootstrap over images, and the spread of seeds.

Images are drawn with replacement, the same for both models (Efron and Tibshirani 1993); the spread
of the difference over the draws is what another choice of images explains. The seeds' own spread,
pooled over the two models, is what another training explains. Both add up to the variance of the
difference, whose interval is Student's, with degrees of freedom after Welch and Satterthwaite: a
few seeds tell little of their spread. What images do to one seed and not to another is in both
parts, so that equal models are told apart less often than one time in twenty, never more often.
Where every model has one seed, the interval is of these trained models, not of their architectures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from bench.scores import class_iou_of_totals, scores_of_totals

NUM_DRAWS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sampled:
    """One score of one model.

    seeds: on all images, (S,), a value for each seed.
    draws: on drawn images, (B,), the mean over seeds.
    num_images: in a draw.
    """

    seeds: NDArray[np.float64]
    draws: NDArray[np.float64]
    num_images: int

    @property
    def value(self) -> float:
        """The mean over seeds on all images."""
        return float(self.seeds.mean())


@dataclass(frozen=True)
class Difference:
    """One model's score minus another's, with its interval."""

    value: float
    low: float
    high: float

    @property
    def is_told_apart(self) -> bool:
        """Whether images and seeds do not explain it."""
        return not self.low <= 0 <= self.high


def draw_images(num_images: int, num_draws: int = NUM_DRAWS) -> NDArray[np.float64]:
    """Return how often each image is in each draw, (B, N); always the same numbers."""
    even = np.full(num_images, 1 / num_images)
    drawn = np.random.default_rng(0).multinomial(num_images, even, size=num_draws)
    return drawn.astype(np.float64)


def sample(
    counts: Sequence[NDArray[Any]], names: Sequence[str], draws: NDArray[np.float64]
) -> Mapping[str, Sampled]:
    """Score a model on all images and on drawn ones.

    Args:
        counts: of each seed, (N, 4, K), with the images in one order for every model.
        names: of the K classes.
        draws: of `draw_images`, the same for every model.

    Returns:
        By score, and by "iou/NAME".
    """
    per_image = np.stack(counts)[:, :, :3].astype(np.float64)  # (S, N, 3, K)
    num_seeds, num_images, _, num_classes = per_image.shape
    weights = np.vstack([np.ones(num_images), draws])  # first all images, then each draw
    flat = per_image.reshape(num_seeds, num_images, -1)
    totals = (weights @ flat).reshape(num_seeds, -1, 3, num_classes)  # whole numbers: exact
    iou = class_iou_of_totals(totals)
    found = scores_of_totals(totals) | {f"iou/{name}": iou[..., i] for i, name in enumerate(names)}
    return {
        name: Sampled(values[:, 0], values[:, 1:].mean(0), num_images)
        for name, values in found.items()
    }


def difference(one: Sampled, other: Sampled) -> Difference:
    """Return one score minus another, with the interval of `CONFIDENCE`."""
    value = one.value - other.value
    of_draws = one.draws - other.draws
    images_freedom = max(1, one.num_images - 1)
    by_images = float(np.nanvar(of_draws, ddof=1)) * one.num_images / images_freedom
    by_seeds, seeds_freedom = _by_seeds(one.seeds, other.seeds)
    variance = by_images + by_seeds
    if variance == 0:
        return Difference(value, value, value)
    terms = [(by_images, images_freedom), (by_seeds, seeds_freedom)]
    freedom = variance**2 / sum(part**2 / free for part, free in terms if part > 0)
    half = stdtrit(max(freedom, 1), (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    return Difference(value, value - half, value + half)


def _by_seeds(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, int]:
    """Return the variance of a difference of means over seeds, and its degrees of freedom."""
    freedom = len(one) + len(other) - 2
    if freedom == 0:
        return 0.0, 0
    squares = ((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()
    return float(squares / freedom * (1 / len(one) + 1 / len(other))), freedom
