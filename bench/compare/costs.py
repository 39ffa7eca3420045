"""Compare time and memory per epoch, if both sides ran on the same machine."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from bench.compare.finding import Finding, Kind, Verdict, not_compared
from bench.compare.snapshot import CaseSnapshot

LEVEL = 0.05


def _times(side: Sequence[CaseSnapshot]) -> NDArray[np.float64] | None:
    """Return the time per image of each epoch, as a multiple of the reference time."""
    epochs = [one.epochs for one in side if one.epochs.image_s]
    if not all(one.reference_s for one in epochs):
        return None
    each = [np.divide(one.image_s, one.reference_s) for one in epochs]
    return np.concatenate([*each, []])


def _memory(side: Sequence[CaseSnapshot]) -> NDArray[np.float64] | None:
    """Return the peak memory of each epoch, in MiB."""
    epochs = [one.epochs for one in side if one.epochs.image_s]
    if not all(one.peak_memory_mib for one in epochs):
        return None
    return np.concatenate([*(one.peak_memory_mib for one in epochs), []])


@dataclass(frozen=True)
class Cost:
    """A cost that is measured in every epoch."""

    kind: Kind
    figure: str
    unit: str
    measured: Callable[[Sequence[CaseSnapshot]], NDArray[np.float64] | None]
    missing: str


COSTS = (
    Cost("time", "time per image", "x reference", _times, "no reference time was measured"),
    Cost("memory", "peak memory", "MiB", _memory, "not measured"),
)


def compare_costs(
    case: str, base: Sequence[CaseSnapshot], new: Sequence[CaseSnapshot], factor: float
) -> Iterator[Finding]:
    """Compare training time per image and peak memory, over all seeds of a model.

    Yields nothing if neither side has a timed epoch.
    """
    if not any(one.epochs.image_s for one in (*base, *new)):
        return
    machines = {one.machine for one in (*base, *new)}
    if len(machines) > 1 or None in machines:
        known = " and ".join(sorted(filter(None, machines)))
        reason = f"different machines or settings: {known}"
        if None in machines:
            others = f" (known: {known})" if known else ""
            reason = f"a machine is unknown or was shared with other cases{others}"
        yield not_compared(case, "time", "time and memory", reason)
        return
    for cost in COSTS:
        ours, theirs = cost.measured(base), cost.measured(new)
        if ours is None or theirs is None:
            yield not_compared(case, cost.kind, cost.figure, cost.missing)
        else:
            yield _judge(case, cost, ours, theirs, factor)


def _judge(
    case: str,
    cost: Cost,
    base: NDArray[np.float64],
    new: NDArray[np.float64],
    factor: float,
) -> Finding:
    """Judge a cost: worse if it grew by more than the factor and a Mann-Whitney test agrees."""
    num = f"{len(base)} and {len(new)}"
    if not (len(base) and len(new)) or _smallest_p(len(base), len(new)) > LEVEL:
        return not_compared(case, cost.kind, cost.figure, f"too few epochs without warm-up: {num}")
    ours, theirs = float(np.median(base)), float(np.median(new))
    found = theirs / ours
    more, less = (
        float(mannwhitneyu(new, base, alternative=way).pvalue) for way in ("greater", "less")
    )
    verdict: Verdict = "same"
    if found > factor and more < LEVEL:
        verdict = "worse"
    elif found < 1 / factor and less < LEVEL:
        verdict = "better"
    digits = 0 if ours >= 100 else 3
    return Finding(
        case,
        cost.kind,
        cost.figure,
        verdict,
        ours,
        theirs,
        f"{ours:.{digits}f} → {theirs:.{digits}f} {cost.unit} ({found:.2f}x)",
        f"factor {factor:g}, Mann-Whitney p = {more:.2g} over {num} epochs",
    )


def _smallest_p(num_base: int, num_new: int) -> float:
    """Return the p-value of a one-sided test if every value of one side is larger."""
    return 1 / math.comb(num_base + num_new, num_new)
