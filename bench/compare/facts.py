"""Compare facts, which are the same on every machine: any difference is worse."""

import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.compare.finding import Finding, Verdict, not_compared
from bench.compare.snapshot import FACTS, FINISHED, CaseSnapshot, Scored
from bench.evaluation.scores import INTERSECTION, ON_VOID, PREDICTION, TRUTH, scores_of_totals
from bench.suite.columns import column
from bench.suite.gate import SHARES, Gate
from bench.text import listed

EQUAL = "must be equal"
CLASSES_SHOWN = 4  # per message
DATA_KEYS = ("dataset", "split", "fingerprint", "limit", "score_at")
ROUNDING = 1e-12  # of sums in a different order
ROWS = {
    TRUTH: "pixels",
    PREDICTION: "pixels predicted",
    INTERSECTION: "pixels correct",
    ON_VOID: "pixels predicted on void",
}


def compare_facts(
    name: str, base: CaseSnapshot, new: CaseSnapshot, gate: Gate
) -> Iterator[Finding]:
    """Compare the network of a case and its pixel counts, figure by figure."""
    if new.status not in FINISHED:
        return  # it has no facts; its failure is reported elsewhere
    for fact, words in FACTS.items():
        if fact in base.facts and fact in new.facts:
            yield _finding(name, words, base.facts[fact], new.facts[fact])
        elif fact in base.facts:
            yield not_compared(name, "fact", words, "the new record has none")
    exact = any(fnmatch.fnmatchcase(name, pattern) for pattern in gate.exact)
    rows = (TRUTH, PREDICTION, INTERSECTION, ON_VOID) if exact else (TRUTH,)
    for key, scored in base.evaluations.items():
        other = new.evaluations.get(key)
        if other is None:
            yield not_compared(name, "score", key, "the new record has no such evaluation")
        else:
            yield from _stored(name, key, scored)
            yield from _pixels(name, key, scored, other, rows)


def _pixels(
    name: str, key: str, base: Scored, new: Scored, rows: Sequence[int]
) -> Iterator[Finding]:
    """Compare the pixels of each class, if both sides have counts on the same data."""
    if base.classes != new.classes:
        yield _finding(name, f"classes of {key}", base.classes, new.classes)
    elif not _same_data(base, new):
        yield not_compared(name, "fact", f"pixels of {key}", "counted on different data")
    elif base.totals is not None and new.totals is None:
        yield not_compared(name, "fact", f"pixels of {key}", "the new record has no counts")
    elif base.totals is not None and new.totals is not None:
        for row in rows:
            yield _of_classes(name, f"{key}: {ROWS[row]}", row, base, new)


def _finding(name: str, figure: str, base: Any, new: Any) -> Finding:
    is_equal = base == new
    return Finding(
        name,
        "fact",
        figure,
        "same" if is_equal else "worse",
        base,
        new,
        change=f"{_text(base)} → {_text(new)}",
        bound=EQUAL,
    )


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ("x" if isinstance(value, list) else ", ").join(map(str, value))
    return str(value)


def _stored(name: str, key: str, scored: Scored) -> Iterator[Finding]:
    """Recompute scores from stored counts: today's code must reproduce the stored scores."""
    if scored.totals is None:
        return
    today = scores_of_totals(np.array(scored.totals))
    for score in SHARES:
        then, now = scored.scores.get(score), float(today[score])
        if then is None or np.isnan(now):
            continue
        figure = f"{column(score).header} from stored counts, {key}"
        if abs(then - now) <= ROUNDING:
            yield Finding(name, "fact", figure, "same", then, then, bound=EQUAL)
        else:
            change = f"{100 * then:.4f} → {100 * now:.4f} %"
            yield Finding(name, "fact", figure, "worse", then, now, change, EQUAL)


def _same_data(one: Scored, other: Scored) -> bool:
    return all(one.protocol.get(key) == other.protocol.get(key) for key in DATA_KEYS)


def _of_classes(name: str, figure: str, row: int, base: Scored, new: Scored) -> Finding:
    assert base.totals is not None
    assert new.totals is not None
    ours, theirs = base.totals[row], new.totals[row]
    differing = [
        f"{label} {one:,} → {other:,}"
        for label, one, other in zip(base.classes, ours, theirs, strict=True)
        if one != other
    ]
    change = listed(differing, CLASSES_SHOWN)
    verdict: Verdict = "worse" if differing else "same"
    return Finding(name, "fact", figure, verdict, list(ours), list(theirs), change, EQUAL)
