import numpy as np
import pytest
from fixtures import case_snapshot
from scipy.stats import t

from bench.compare.finding import Finding
from bench.compare.scores import Pair, compare_scores, pairs
from bench.compare.snapshot import CaseSnapshot, Scored
from bench.evaluation.bootstrap import (
    MOST_SEEDS,
    difference,
    draw_images,
    num_seeds_needed,
    of_seeds,
    sample,
)
from bench.suite.gate import Gate, Minimum

PROTOCOL = {"split": "val", "fingerprint": "f", "size": "as stored"}
BOTH = 1 - 0.05 / 2  # jointly 95 %, if mIoU and pixel accuracy changed
NO_GATE = Gate()


def scored(miou: float | None, counts: np.ndarray | None = None, **protocol: str) -> Scored:
    return Scored(
        protocol=PROTOCOL | protocol,
        scores_version=1,
        classes=("a", "b"),
        scores={"miou": miou, "pixel_accuracy": 0.5, "loss": 1.0},
        per_image=counts,
    )


def judged(base: list[Scored], new: list[Scored], gate: Gate = NO_GATE) -> Finding:
    pair = Pair("d__m__r__s0", ("d__m__r__s0",), "val", tuple(base), tuple(new))
    [found] = [f for f in compare_scores([pair], gate, "val") if f.figure == "mIoU, val"]
    return found


def test_spread_of_the_baseline_by_hand() -> None:
    """0.50, 0.52, 0.54 have a sum of squares of 0.0008, with two degrees of freedom.

    The assumed spread of 0.01 adds four more; 3 trainings against 1 give the factor 1/3 + 1.
    """
    base = [scored(miou) for miou in (0.50, 0.52, 0.54)]
    half = t.ppf(0.975, 6) * ((0.0008 + 4 * 0.01**2) / 6 * (1 / 3 + 1)) ** 0.5
    found = judged(base, [scored(0.49)])
    assert (found.low, found.high) == pytest.approx((-0.03 - half, -0.03 + half))
    assert found.verdict == "same"
    assert "significant only with " in found.bound
    assert "seeds on each side" in found.bound
    assert "3 and 1 seeds" in found.bound
    assert judged(base, [scored(0.30)]).verdict == "worse"
    assert judged(base, [scored(0.74)]).verdict == "better"


def test_one_seed_each_has_the_assumed_spread() -> None:
    half = t.ppf(0.975, 4) * 2**0.5 * 0.01
    found = judged([scored(0.5)], [scored(0.48)])
    assert (found.low, found.high) == pytest.approx((-0.02 - half, -0.02 + half))
    assert found.verdict == "same"
    assert "1 seed each, assumed standard deviation 1 points)" in found.bound
    assert judged([scored(0.5)], [scored(0.48)], Gate(seed_spread=0.005)).verdict == "worse"


def test_images_are_resampled_if_both_sides_have_their_counts() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(20, 80, 30)
    base, new = (counts_of(right), counts_of(right - 2))
    found = judged([scored(0.5, base)], [scored(0.5, new)], Gate(seed_spread=0.0))
    draws = draw_images(30)
    by_hand = difference(
        sample([new], ("a", "b"), draws)["miou"], sample([base], ("a", "b"), draws)["miou"], BOTH
    )
    assert (found.low, found.high) == (by_hand.low, by_hand.high)
    assert (
        found.verdict == "worse"
    )  # each image lost two pixels, so the choice of images does not explain it
    assert "(over images, " in found.bound
    unseen = judged([scored(0.5, base)], [scored(0.5)])
    assert "no counts per image" in unseen.bound


def counts_of(right: np.ndarray) -> np.ndarray:
    counts = np.zeros((len(right), 4, 2), np.uint32)
    counts[:, 0, 0] = 100
    counts[:, 1, 0] = counts[:, 2, 0] = right
    counts[:, 1, 1] = 100 - right
    return counts


def test_a_minimum_applies_to_the_mean_over_seeds() -> None:
    gate = Gate(floors=(Minimum(case="d__*", values={"miou": 0.45}),))
    assert judged([scored(0.5)], [scored(0.44), scored(0.48)], gate).verdict == "same"
    below = judged([scored(0.46)], [scored(0.44), scored(0.45)], gate)
    assert below.verdict == "worse"
    assert below.bound.startswith("below the minimum of 45.00 %")
    other = Gate(floors=(Minimum(case="x__*", values={"miou": 0.9}),))
    assert judged([scored(0.5)], [scored(0.5)], other).verdict == "same"
    elsewhere = Gate(floors=(Minimum(case="*", evaluation="test", values={"miou": 0.9}),))
    assert judged([scored(0.5)], [scored(0.5)], elsewhere).verdict == "same"


def test_a_missing_score_is_not_compared_and_is_below_any_minimum() -> None:
    assert judged([scored(0.5)], [scored(None)]).verdict == "not compared"
    gate = Gate(floors=(Minimum(case="*", values={"miou": 0.1}),))
    gone = judged([scored(0.5)], [scored(None)], gate)
    assert (gone.verdict, gone.bound) == ("worse", "one side has no value; the minimum is 10.00 %")
    nothing = np.zeros((3, 4, 2), np.uint32)
    assert judged([scored(0.5, nothing)], [scored(0.5, nothing)], gate).verdict == "worse"


def test_seeds_with_equal_scores_do_not_make_every_change_significant() -> None:
    assert judged([scored(0.5), scored(0.5)], [scored(0.4999)]).verdict == "same"


def test_no_score_moves_by_more_than_100_points() -> None:
    found = judged([scored(0.9), scored(0.1)], [scored(0.2)])
    assert "[-100.00, +" in found.bound


def test_figures_that_cannot_be_significant_widen_no_interval() -> None:
    """Two images are too few to find any difference; the other scores keep their 95 %."""
    few = counts_of(np.array([10, 90])), counts_of(np.array([50, 20]))
    names = ("d__few__r__s0",)
    blind = Pair(names[0], names, "val", (scored(0.5, few[0]),), (scored(0.4, few[1]),))
    pair = Pair("d__m__r__s0", ("d__m__r__s0",), "val", (scored(0.5),), (scored(0.48),))
    found = list(compare_scores([blind, pair], NO_GATE, "val"))
    assert found[0].verdict == "same"
    half = t.ppf(0.975, 4) * 2**0.5 * 0.01
    assert found[2].high == pytest.approx(-0.02 + half)


def test_equal_models_are_rarely_called_worse() -> None:
    """As in the gate: over images and seeds, with one seed each or three against one."""
    rng = np.random.default_rng(2)
    for num_base in (1, 3):
        alarms = 0
        for _ in range(150):
            means = 60 + rng.normal(0, 2, num_base + 1)
            images = rng.normal(0, 8, 40)
            right = np.clip(means[:, None] + images + rng.normal(0, 2, (num_base + 1, 40)), 0, 100)
            sides = [scored(0.5, counts_of(one.round().astype(np.uint32))) for one in right]
            gate = Gate(seed_spread=0.02)
            pair = Pair("m", ("m",), "val", tuple(sides[1:]), (sides[0],))
            found = compare_scores([pair], gate, "val")
            alarms += any(one.verdict == "worse" for one in found)
        assert alarms / 150 < 0.06, num_base


def test_scores_of_different_protocols_are_not_compared() -> None:
    [found] = pairs("m", [case(scored(0.5))], [case(scored(0.5, fingerprint="g"))], ["val", "x"])
    assert isinstance(found, Finding)
    assert found.verdict == "not compared"
    assert found.bound == "scored differently: fingerprint f → g"


def case(one: Scored) -> tuple[str, CaseSnapshot]:
    snapshot = case_snapshot(
        evaluations={"val": one},
    )
    return "d__m__r__s0", snapshot


def test_num_seeds_by_hand() -> None:
    """0.03 > t(8) 0.02 sqrt(2 / 5) = 0.0292, but not t(6) 0.02 sqrt(2 / 4) = 0.0346."""
    one, other = of_seeds([0.53]), of_seeds([0.50])
    assert num_seeds_needed(one, other, assumed_spread=0.02) == 5
    assert num_seeds_needed(of_seeds([0.5]), other, assumed_spread=0.02) is None
    assert num_seeds_needed(of_seeds([0.501]), other, assumed_spread=0.02) == MOST_SEEDS + 1


def test_equal_models_with_several_seeds_are_rarely_significantly_different() -> None:
    rng = np.random.default_rng(1)
    trials = rng.normal(0.5, 0.02, (2000, 2, 3))
    num_significant = sum(difference(of_seeds(a), of_seeds(b)).is_significant for a, b in trials)
    assert 0.03 < num_significant / len(trials) < 0.07
