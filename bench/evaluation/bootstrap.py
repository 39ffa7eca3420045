"""Whether two models differ significantly: a paired bootstrap over images, and the spread of seeds.

Images are drawn with replacement, the same for both models (Efron and Tibshirani 1993). The
variance of the difference over the draws is due to the choice of images. The variance over seeds,
pooled over the two models, is due to training. Their sum is the variance of the difference. Its
interval is Student's, with degrees of freedom after Welch and Satterthwaite, since a few seeds or
a few images give a poor estimate of their spread. How many images a difference rests on is found
by leaving out each in turn: the IoU of a class that occurs in two images rests on two.

An effect of images that only some seeds show is counted in both parts, so the test errs towards
not significant. If every model has one seed, the interval is about these trained models,
not about their architectures, unless a spread of seeds is assumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from bench.evaluation.scores import class_iou_of_totals, scores_of_totals

NUM_DRAWS = 1000
CONFIDENCE = 0.95
MOST_SEEDS = 100  # more than anybody would train
PRIOR_FREEDOM = 4  # degrees of freedom of an assumed spread of seeds
Part = tuple[float, float]  # a variance and its degrees of freedom


@dataclass(frozen=True)
class Sampled:
    """One score of one model.

    seeds: on all images, (S,), one value per seed.
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
    def is_significant(self) -> bool:
        """Whether the difference is significant: its interval does not contain 0."""
        return not self.low <= 0 <= self.high


def draw_images(num_images: int, num_draws: int = NUM_DRAWS) -> NDArray[np.float64]:
    """Return how often each image occurs in each draw, (B, N); always the same numbers."""
    even = np.full(num_images, 1 / num_images)
    drawn = np.random.default_rng(0).multinomial(num_images, even, size=num_draws)
    return drawn.astype(np.float64)


def sample(
    counts: Sequence[NDArray[Any]], names: Sequence[str], draws: NDArray[np.float64]
) -> Mapping[str, Sampled]:
    """Score a model on all images and on drawn ones.

    Args:
        counts: (N, 4, K) per seed, with the images in the same order for every model.
        names: names of the K classes.
        draws: from `draw_images`, the same for every model.

    Returns:
        Each score by its name, and the IoU of each class as "iou/NAME".
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


def of_seeds(values: Sequence[float]) -> Sampled:
    """Return a score without counts per image: its interval is due to seeds only."""
    seeds = np.asarray(values, np.float64)
    whole = np.full(2, seeds.mean())
    return Sampled(seeds, whole, whole)


def difference(
    one: Sampled,
    other: Sampled,
    confidence: float = CONFIDENCE,
    assumed_spread: float = 0.0,
) -> Difference:
    """Return one score minus another, with its interval.

    Args:
        assumed_spread: a standard deviation over seeds that is pooled with the measured one, as
            if it had `PRIOR_FREEDOM` degrees of freedom; 0: only the measured one.
    """
    value = one.value - other.value
    variance, freedom = _variance_over_seeds(one.seeds, other.seeds, assumed_spread)
    by_seeds = variance * (1 / len(one.seeds) + 1 / len(other.seeds)), freedom
    half = _half([_by_images(one, other, value), by_seeds], confidence)
    return Difference(value, value - half, value + half)


def num_seeds_needed(
    one: Sampled, other: Sampled, confidence: float = CONFIDENCE, assumed_spread: float = 0.0
) -> int | None:
    """Return how many seeds per model would make this difference significant.

    None if no number would, because there are too few images. `MOST_SEEDS` + 1 means more than
    `MOST_SEEDS`.
    """
    value = one.value - other.value
    by_images = _by_images(one, other, value)
    if abs(value) <= _half([by_images], confidence):
        return None
    variance, _ = _variance_over_seeds(one.seeds, other.seeds, assumed_spread)
    prior = PRIOR_FREEDOM if assumed_spread else 0
    for num in range(2, MOST_SEEDS + 1):
        by_seeds = 2 * variance / num, 2.0 * (num - 1) + prior
        if abs(value) > _half([by_images, by_seeds], confidence):
            return num
    return MOST_SEEDS + 1


def _half(parts: Sequence[Part], confidence: float) -> float:
    """Return half the width of Student's interval for a sum of variances."""
    variance = sum(part for part, _ in parts)
    if variance == 0 or not np.isfinite(variance):
        return float(variance)
    uncertain = sum(part**2 / free for part, free in parts if part > 0)
    freedom = variance**2 / uncertain if uncertain else np.inf
    return float(stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(variance))


def _by_images(one: Sampled, other: Sampled, value: float) -> Part:
    """Return the variance of a difference over images, and its degrees of freedom.

    Both depend on how many images the difference rests on: N if all weigh the same, 1 if only one
    matters. With 1, or if the score is undefined without some image, the variance is infinite.
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


def _variance_over_seeds(
    one: NDArray[np.float64], other: NDArray[np.float64], assumed_spread: float
) -> Part:
    """Return the variance of one training over seeds, pooled over two models, and its freedom."""
    squares = ((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()
    freedom = float(len(one) + len(other) - 2)
    if assumed_spread:
        squares += PRIOR_FREEDOM * assumed_spread**2
        freedom += PRIOR_FREEDOM
    return (float(squares / freedom), freedom) if freedom else (0.0, 1.0)
