from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from bench.evaluation.bootstrap import Sampled, difference, draw_images, sample

NAMES = ("a", "b")


def counts_of(right: np.ndarray, pixels: int = 100) -> np.ndarray:
    """Count images of one true class, a; the given numbers of pixels are right, the others b."""
    counts = np.zeros((len(right), 4, 2), np.int64)
    counts[:, 0, 0] = pixels
    counts[:, 1, 0] = counts[:, 2, 0] = right
    counts[:, 1, 1] = pixels - right
    return counts


def test_draws_are_of_all_images_and_always_the_same() -> None:
    draws = draw_images(7, 50)
    assert draws.shape == (50, 7)
    assert (draws.sum(1) == 7).all()
    assert np.array_equal(draws, draw_images(7, 50))


def test_by_hand() -> None:
    """Two images: a draw has the first twice, each once (twice as often) or the second twice."""
    draws = np.array([[2.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
    one = sample([counts_of(np.array([90, 70]))], NAMES, draws)["pixel_accuracy"]
    other = sample([counts_of(np.array([80, 40]))], NAMES, draws)["pixel_accuracy"]
    assert one.seeds == pytest.approx([0.8])
    assert one.draws == pytest.approx([0.9, 0.8, 0.8, 0.7])
    assert other.draws == pytest.approx([0.8, 0.6, 0.6, 0.4])
    # Differences of the draws 0.1, 0.2, 0.2, 0.3: variance 0.02 / 3, and as two
    # images spread it too little by N / (N - 1) = 2, twice that. One degree of freedom: the
    # quantile of Student's distribution is 12.7062.
    found = difference(one, other)
    half = 12.7062 * (2 * 0.02 / 3) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert not found.is_significant


def test_seeds_by_hand() -> None:
    """The seeds' spread is pooled; if images do not differ, the interval is that of a t test."""
    seeds = np.array([0.50, 0.52, 0.54]), np.array([0.60, 0.62])
    one, other = (
        Sampled(values, np.full(5, values.mean()), np.full(9, values.mean())) for values in seeds
    )
    # Squares 0.0008 + 0.0002 over 3 degrees of freedom, times 1/3 + 1/2; t = 3.1824.
    half = 3.1824 * (0.001 / 3 * (1 / 3 + 1 / 2)) ** 0.5
    found = difference(other, one)
    assert (found.low, found.high) == pytest.approx((0.09 - half, 0.09 + half), rel=1e-4)
    assert found.is_significant


def test_equal_predictions_are_never_significantly_different() -> None:
    counts = [counts_of(np.array([90, 70, 60]))]
    draws = draw_images(3, 50)
    one = sample(counts, NAMES, draws)
    assert difference(one["miou"], one["miou"]).high == 0
    assert not difference(one["miou"], one["miou"]).is_significant


def test_a_class_that_some_draws_lack() -> None:
    counts = counts_of(np.array([90, 100, 100, 100]))
    sampled = sample([counts], NAMES, draw_images(4, 60))["iou/b"]
    assert np.isnan(sampled.draws).any()
    assert difference(sampled, sampled).value == 0


def told_apart(make: Callable[[], np.ndarray], num_seeds: tuple[int, int], score: str) -> float:
    """Return how often two models differ significantly if one function makes both their counts."""
    apart, trials = 0, 500
    for _ in range(trials):
        seeds = [[make() for _ in range(num)] for num in num_seeds]
        draws = draw_images(len(seeds[0][0]), 200)
        models = [sample(one, NAMES, draws)[score] for one in seeds]
        apart += difference(*models).is_significant
    return apart / trials


@pytest.mark.parametrize(
    ("num_seeds", "seed_spread"),
    [((1, 1), 0.0), *((n, s) for n in ((3, 3), (2, 4), (5, 1)) for s in (0.0, 6.0))],
)
def test_two_equal_models_differ_significantly_one_time_in_twenty_or_less(
    num_seeds: tuple[int, int], seed_spread: float
) -> None:
    """Simulate models that share each image's difficulty; each training adds a shift and noise."""
    rng = np.random.default_rng(7)
    difficulty = rng.normal(600, 100, 40)

    def make() -> np.ndarray:
        right = difficulty + rng.normal(0, seed_spread) + rng.normal(0, 30, 40)
        return counts_of(np.clip(right, 0, 1000).round().astype(np.int64), 1000)

    assert told_apart(make, num_seeds, "pixel_accuracy") < 0.07  # 0.05 and two standard errors


@pytest.mark.parametrize("num_with_class", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("score", ["iou/b", "miou"])
def test_a_class_in_few_images(num_with_class: int, score: str) -> None:
    """A class in few images depends on these, however many other images there are."""
    rng = np.random.default_rng(3)
    pixels = np.zeros(60, np.int64)
    pixels[:num_with_class] = 500

    def make() -> np.ndarray:
        counts = np.zeros((60, 4, 2), np.int64)
        found = np.clip(pixels * rng.normal(0.5, 0.2, 60), 0, pixels).round().astype(np.int64)
        wrong = np.clip(rng.normal(20, 5, 60), 0, 99).round().astype(np.int64)  # a, called b
        counts[:, 0] = np.stack([1000 - pixels, pixels], 1)
        counts[:, 2] = np.stack([1000 - pixels - wrong, found], 1)
        counts[:, 1, 1] = found + wrong
        counts[:, 1, 0] = 1000 - counts[:, 1, 1]
        return counts

    assert told_apart(make, (1, 1), score) < 0.08


def test_one_image_tells_nothing() -> None:
    draws = draw_images(1, 50)
    one, other = (sample([counts_of(np.array([n]))], NAMES, draws)["miou"] for n in (10, 90))
    assert not difference(one, other).is_significant


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(1)
    draws = draw_images(40, 200)
    models = [
        sample([counts_of(rng.normal(mean, 3, 40).round().astype(np.int64))], NAMES, draws)
        for mean in (70, 75, 80)
    ]
    assert all(difference(b["miou"], a["miou"]).is_significant for a, b in pairwise(models))
