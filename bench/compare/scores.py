"""Compare scores: worse if significantly lower, or below the minimum that the suite sets."""

import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.compare.finding import Finding, Verdict, not_compared
from bench.compare.snapshot import CaseSnapshot, Scored
from bench.evaluation.bootstrap import (
    CONFIDENCE,
    MOST_SEEDS,
    Difference,
    Sampled,
    difference,
    draw_images,
    num_seeds_needed,
    of_seeds,
    sample,
)
from bench.records.frame import PROTOCOL_KEYS
from bench.suite.columns import column
from bench.suite.gate import SHARES, Gate

COMPARED = ("miou", "pixel_accuracy")
WIDEST = 0.5  # an interval of 50 points is useless


@dataclass(frozen=True)
class Pair:
    """One evaluation of a model on both sides, with one entry per seed."""

    case: str
    names: tuple[str, ...]  # of its cases, for matching globs
    evaluation: str
    base: tuple[Scored, ...]
    new: tuple[Scored, ...]


@dataclass(frozen=True)
class ScorePair:
    """One score of a pair."""

    pair: Pair
    score: str
    base: Sampled
    new: Sampled
    minimum: float | None
    counted: bool  # whether both sides have counts of each image

    @property
    def has_values(self) -> bool:
        """Whether both sides have this score."""
        return math.isfinite(self.base.value) and math.isfinite(self.new.value)

    def could_be_significant(self, spread: float) -> bool:
        """Whether a relevant difference could be significant; with two images, none can."""
        if not self.has_values:
            return False
        found = difference(self.new, self.base, assumed_spread=spread)
        return found.high - found.low < WIDEST


def pairs(
    case: str,
    base: Sequence[tuple[str, CaseSnapshot]],
    new: Sequence[tuple[str, CaseSnapshot]],
    keys: Iterable[str],
) -> Iterator[Pair | Finding]:
    """Pair the evaluations of a model, or report why they are not comparable.

    Args:
        base, new: the trained seeds of the model, with their names.
        keys: the evaluations; those that a side lacks are skipped.
    """
    for key in keys:
        ours = tuple(one.evaluations[key] for _, one in base if key in one.evaluations)
        theirs = tuple(one.evaluations[key] for _, one in new if key in one.evaluations)
        if not (ours and theirs):
            continue  # missing evaluations are reported per case
        differing = _differing([*ours, *theirs])
        if differing:
            yield not_compared(case, "score", key, f"scored differently: {differing}")
        else:
            names = tuple(dict.fromkeys(name for name, _ in (*base, *new)))
            yield Pair(case, names, key, ours, theirs)


def _differing(scored: Sequence[Scored]) -> str:
    """Describe how the protocols of evaluations differ; empty if they do not."""
    first = scored[0]
    for one in scored[1:]:
        changed = [
            f"{key} {first.protocol.get(key)} → {one.protocol.get(key)}"
            for key in PROTOCOL_KEYS
            if first.protocol.get(key) != one.protocol.get(key)
        ]
        if first.classes != one.classes:
            changed.append("class names")
        if first.images and one.images and first.images != one.images:
            changed.append("images or their order")
        if first.scores_version != one.scores_version:
            changed.append(f"scores version {first.scores_version} → {one.scores_version}")
        if changed:
            return ", ".join(changed)
    return ""


def compare_scores(found: Sequence[Pair], gate: Gate, first: str | None) -> Iterator[Finding]:
    """Compare mIoU, pixel accuracy and every other score that has a minimum.

    Intervals hold at 95 % jointly (Bonferroni) for all figures that changed, except those for which
    no difference could be significant.

    Args:
        first: the reported evaluation that minimums apply to if they name none.
    """
    figures: list[ScorePair] = []
    for pair in found:
        figures += _figures(pair, _minimums(pair, gate, first))
    judging = [one for one in figures if one.could_be_significant(gate.seed_spread)]
    num_changed = sum(one.base.value != one.new.value for one in judging)
    confidence = 1 - (1 - CONFIDENCE) / max(1, num_changed)
    for figure in figures:
        if figure.has_values:
            yield _judge(figure, gate, confidence)
        elif math.isfinite(figure.base.value) or figure.minimum is not None:
            yield _missing(figure)


def _figures(pair: Pair, minimums: Mapping[str, float]) -> list[ScorePair]:
    """Return the scores of a pair, resampled over images if both sides have their counts."""
    kept = [[one.per_image for one in side] for side in (pair.base, pair.new)]
    counted = all(counts is not None for side in kept for counts in side)
    if counted:
        ours, theirs = ([c for c in side if c is not None] for side in kept)
        draws, names = draw_images(len(ours[0])), pair.base[0].classes
        base, new = sample(ours, names, draws), sample(theirs, names, draws)
    else:
        base, new = _of_seeds(pair.base), _of_seeds(pair.new)
    return [
        ScorePair(pair, name, base[name], new[name], minimums.get(name), counted)
        for name in dict.fromkeys((*COMPARED, *minimums))
    ]


def _of_seeds(side: Sequence[Scored]) -> dict[str, Sampled]:
    """Return scores without resampling over images; NaN if any seed has none."""
    return {
        name: of_seeds([math.nan if (v := one.scores.get(name)) is None else v for one in side])
        for name in SHARES
    }


def _minimums(pair: Pair, gate: Gate, first: str | None) -> dict[str, float]:
    """Return the highest minimum of each score that the suite sets for this model."""
    found: dict[str, float] = {}
    for minimum in gate.floors:
        if (minimum.evaluation or first) != pair.evaluation:
            continue
        if any(fnmatch.fnmatchcase(name, minimum.case) for name in pair.names):
            for score, value in minimum.values.items():
                found[score] = max(value, found.get(score, 0.0))
    return found


def _judge(figure: ScorePair, gate: Gate, confidence: float) -> Finding:
    base, new, minimum = figure.base, figure.new, figure.minimum
    found = difference(new, base, confidence, gate.seed_spread)
    verdict: Verdict = "same"
    if found.is_significant:
        verdict = "worse" if found.value < 0 else "better"
    bounds = [_interval(found, confidence, figure, gate)]
    if verdict == "same" and found.value != 0:
        num = num_seeds_needed(new, base, confidence, gate.seed_spread)
        bounds.append(_seeds_needed(num))
    if minimum is not None:
        below = new.value < minimum
        verdict = "worse" if below else verdict
        bounds.insert(0, f"{'below' if below else 'meets'} the minimum of {100 * minimum:.2f} %")
    return Finding(
        figure.pair.case,
        "score",
        f"{column(figure.score).header}, {figure.pair.evaluation}",
        verdict,
        base.value,
        new.value,
        f"{100 * base.value:.2f} → {100 * new.value:.2f} %",
        "; ".join(bounds),
        found.low,
        found.high,
        figure.pair.names,
    )


def _missing(figure: ScorePair) -> Finding:
    """Report a score that a side lacks; it is worse if the score has a minimum."""
    case, name = figure.pair.case, f"{column(figure.score).header}, {figure.pair.evaluation}"
    reason = "one side has no value"
    if figure.minimum is None:
        return not_compared(case, "score", name, reason)
    bound = f"{reason}; the minimum is {100 * figure.minimum:.2f} %"
    return Finding(case, "score", name, "worse", bound=bound, rests_on=figure.pair.names)


def _seeds_needed(num: int | None) -> str:
    """Describe how many seeds would make the difference significant."""
    if num is None:
        return "too few images for any number of seeds to make it significant"
    needed = f"more than {MOST_SEEDS}" if num > MOST_SEEDS else str(num)
    return f"significant only with {needed} seeds on each side"


def _interval(found: Difference, confidence: float, figure: ScorePair, gate: Gate) -> str:
    """Describe the interval of a difference, and whether it is over images and seeds."""
    num = len(figure.base.seeds), len(figure.new.seeds)
    over = "over images" if figure.counted else "no counts per image"
    seeds = "1 seed each" if num == (1, 1) else f"{num[0]} and {num[1]} seeds"
    low, high = max(found.low, -1.0), min(found.high, 1.0)
    return (
        f"{100 * found.value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points at "
        f"{100 * confidence:.4g} % ({over}, {seeds}, assumed standard "
        f"deviation {100 * gate.seed_spread:g} points)"
    )
