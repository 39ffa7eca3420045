"""Scores: worse where neither images nor seeds explain it, or below the suite's floor."""

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.bootstrap import (
    CONFIDENCE,
    Difference,
    Sampled,
    difference,
    draw_images,
    num_seeds_to_tell,
    of_seeds,
    sample,
)
from bench.columns import column
from bench.compare.finding import Finding, Verdict, not_compared
from bench.compare.snapshot import CaseSnapshot, Scored
from bench.frame import PROTOCOL_KEYS
from bench.gate_spec import Gate

COMPARED = ("miou", "pixel_accuracy")


@dataclass(frozen=True)
class Pair:
    """One model's evaluation on both sides, a value for each seed."""

    case: str
    names: tuple[str, ...]  # of its cases, for globs
    evaluation: str
    base: tuple[Scored, ...]
    new: tuple[Scored, ...]


@dataclass(frozen=True)
class Figure:
    """One score of a pair."""

    pair: Pair
    score: str
    base: Sampled
    new: Sampled
    floor: float | None


def pairs(
    case: str,
    base: Sequence[tuple[str, CaseSnapshot]],
    new: Sequence[tuple[str, CaseSnapshot]],
    keys: Iterable[str],
) -> Iterator[Pair | Finding]:
    """Pair a model's evaluations, or say why they are not comparable.

    Args:
        base, new: the seeds of the model that are trained, with their names.
        keys: the evaluations; what the base has not is passed over.
    """
    names = tuple(dict.fromkeys(name for name, _ in (*base, *new)))
    for key in keys:
        ours = tuple(one.evaluations[key] for _, one in base if key in one.evaluations)
        if not ours:
            continue
        theirs = tuple(one.evaluations[key] for _, one in new if key in one.evaluations)
        if not theirs:
            yield not_compared(case, "score", key, "the new records have no such evaluation")
            continue
        differing = _differing([*ours, *theirs])
        if differing:
            yield not_compared(case, "score", key, f"scored otherwise: {differing}")
            continue
        yield Pair(case, names, key, ours, theirs)


def _differing(scored: Sequence[Scored]) -> str:
    """Say what in the protocol of evaluations is not the same for all."""
    first = scored[0]
    for one in scored[1:]:
        changed = [
            f"{key} {first.protocol.get(key)} → {one.protocol.get(key)}"
            for key in PROTOCOL_KEYS
            if first.protocol.get(key) != one.protocol.get(key)
        ]
        if first.classes != one.classes:
            changed.append("names of classes")
        if first.images and one.images and first.images != one.images:
            changed.append("images or their order")
        if first.scores_version != one.scores_version:
            changed.append(f"scores version {first.scores_version} → {one.scores_version}")
        if changed:
            return ", ".join(changed)
    return ""


def compare_scores(found: Sequence[Pair], gate: Gate, first: str | None) -> Iterator[Finding]:
    """Compare mIoU and pixel accuracy, and whatever else has a floor.

    Intervals are of 95 % for all figures together that changed at all (Bonferroni).

    Args:
        first: the reported evaluation that floors are of where they name none.
    """
    figures = []
    for pair in found:
        base, new = _sampled(pair)
        floors = _floors(pair, gate, first)
        figures += [
            Figure(pair, score, base[score], new[score], floors.get(score))
            for score in dict.fromkeys((*COMPARED, *floors))
            if score in base and score in new
        ]
    num_changed = sum(one.base.value != one.new.value for one in figures)
    confidence = 1 - (1 - CONFIDENCE) / max(1, num_changed)
    for figure in figures:
        yield _judge(figure, gate, confidence)


def _sampled(pair: Pair) -> tuple[dict[str, Sampled], dict[str, Sampled]]:
    """Return the scores of both sides, on drawn images where these were counted on both."""
    kept = [[one.per_image for one in side] for side in (pair.base, pair.new)]
    if all(counts is not None for side in kept for counts in side):
        ours, theirs = ([c for c in side if c is not None] for side in kept)
        draws = draw_images(len(ours[0]))
        names = pair.base[0].classes
        return dict(sample(ours, names, draws)), dict(sample(theirs, names, draws))
    return _of_seeds(pair.base), _of_seeds(pair.new)


def _of_seeds(side: Sequence[Scored]) -> dict[str, Sampled]:
    values = {name: [one.scores.get(name) for one in side] for name in side[0].scores}
    return {
        name: of_seeds([one for one in several if one is not None])
        for name, several in values.items()
        if None not in several
    }


def _floors(pair: Pair, gate: Gate, first: str | None) -> dict[str, float]:
    """Return the highest floor of each score that the suite gives this model."""
    found: dict[str, float] = {}
    for floor in gate.floors:
        if (floor.evaluation or first) != pair.evaluation:
            continue
        if any(fnmatch.fnmatchcase(name, floor.case) for name in pair.names):
            for score, value in floor.values.items():
                found[score] = max(value, found.get(score, 0.0))
    return found


def _judge(figure: Figure, gate: Gate, confidence: float) -> Finding:
    base, new, floor = figure.base, figure.new, figure.floor
    found = difference(new, base, confidence, gate.seed_spread)
    verdict: Verdict = "same"
    if found.is_told_apart:
        verdict = "worse" if found.value < 0 else "better"
    told = verdict != "same"
    bounds = [_interval(found, confidence, base, new, gate)]
    if not told and found.value != 0:
        num = num_seeds_to_tell(new, base, confidence, gate.seed_spread)
        settle = f"{num} seeds each would tell" if num else "no number of seeds would tell"
        bounds.append(settle)
    if floor is not None:
        below = new.value < floor
        verdict = "worse" if below else verdict
        bounds.insert(0, f"{'below' if below else 'above'} the floor of {100 * floor:.2f} %")
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
    )


def _interval(found: Difference, confidence: float, base: Sampled, new: Sampled, gate: Gate) -> str:
    """Write the interval of a difference, and what it is over."""
    num = len(base.seeds), len(new.seeds)
    over = "images" if len(base.draws) > 2 else "images not counted"
    if num == (1, 1):
        seeds = f"seeds assumed to spread by {100 * gate.seed_spread:g} points"
    else:
        seeds = f"{num[0]} and {num[1]} seeds"
    return (
        f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}] points at "
        f"{100 * confidence:.4g} % ({over}, {seeds})"
    )
