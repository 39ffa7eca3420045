"""Whether two models can be told apart: a paired bootstrap over images, and the spread of seeds.

Images are drawn with replacement, the same for both models (Efron and Tibshirani 1993); the spread
of the difference over the draws is what another choice of images explains. The seeds' own spread,
pooled over the two models, is what another training explains. Both add up to the variance of the
difference, whose interval is Student's, with degrees of freedom after Welch and Satterthwaite: a
few seeds tell little of their spread, and so do a few images. How many images a difference rests
on is found by leaving out each in turn: the IoU of a class that two images hold rests on two.
What images do to one seed and not to another is in both parts, which errs towards not telling
apart. Where every model has one seed, the interval is of these trained models, not of their
architectures.
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
    without: on all images but one, (N,), the mean over seeds.
    """

    seeds: NDArray[np.float64]
    draws: NDArray[np.float64]
    without: NDArray[np.float64]

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
    flat = per_image.reshape(num_seeds, num_images, -1)
    every = flat.sum(1, keepdims=True)
    totals = np.concatenate([every, draws @ flat, every - flat], axis=1)  # whole numbers: exact
    totals = totals.reshape(num_seeds, -1, 3, num_classes)
    iou = class_iou_of_totals(totals)
    found = scores_of_totals(totals) | {f"iou/{name}": iou[..., i] for i, name in enumerate(names)}
    end = 1 + len(draws)
    return {
        name: Sampled(values[:, 0], values[:, 1:end].mean(0), values[:, end:].mean(0))
        for name, values in found.items()
    }


def difference(one: Sampled, other: Sampled) -> Difference:
    """Return one score minus another, with the interval of `CONFIDENCE`."""
    value = one.value - other.value
    by_images, images_freedom = _by_images(one, other, value)
    by_seeds, seeds_freedom = _by_seeds(one.seeds, other.seeds)
    variance = by_images + by_seeds
    if variance == 0:
        return Difference(value, value, value)
    terms = [(by_images, images_freedom), (by_seeds, seeds_freedom)]
    if not np.isfinite(variance):
        return Difference(value, -np.inf, np.inf)
    freedom = variance**2 / sum(part**2 / free for part, free in terms if part > 0)
    half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    return Difference(value, value - half, value + half)


def _by_images(one: Sampled, other: Sampled, value: float) -> tuple[float, float]:
    """Return the variance of a difference over images, and its degrees of freedom.

    Both go by the number of images that the difference rests on: N where all weigh the same, 1
    where all but one could be left out. With one, or where the score is none without some image,
    the variance is infinite.
    """
    moved = one.without - other.without - value
    squares, fourths = (moved**2).sum(), (moved**4).sum()
    if squares == 0:
        return 0.0, 1.0
    num_images = squares**2 / fourths
    if not num_images > 1 + 1e-9:
        return np.inf, 1.0
    variance = np.nanvar(one.draws - other.draws, ddof=1) * num_images / (num_images - 1)
    return float(variance), float(num_images - 1)


def _by_seeds(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, int]:
    """Return the variance of a difference of means over seeds, and its degrees of freedom."""
    freedom = len(one) + len(other) - 2
    if freedom == 0:
        return 0.0, 0
    squares = ((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()
    return float(squares / freedom * (1 / len(one) + 1 / len(other))), freedom
