"""Time and memory: on one machine, as multiples of a reference, over epochs."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from bench.compare.finding import Finding, Kind, Verdict, not_compared
from bench.compare.snapshot import CaseSnapshot

LEVEL = 0.05


def compare_costs(
    case: str, base: Sequence[CaseSnapshot], new: Sequence[CaseSnapshot], factor: float
) -> Iterator[Finding]:
    """Compare the time of training an image, and the peak memory, of a model's seeds.

    Nothing where neither side has an epoch after the first.
    """
    if not any(one.epochs.image_s for one in (*base, *new)):
        return
    machines = {one.machine for one in (*base, *new)}
    if len(machines) > 1 or None in machines:
        listed = " and ".join(sorted(map(str, machines - {None}))) or "not known"
        shared = "; one was shared with other cases" if None in machines else ""
        yield not_compared(case, "time", "time and memory", f"other machines: {listed}{shared}")
        return
    times = _times(base), _times(new)
    if times[0] is None or times[1] is None:
        yield not_compared(case, "time", "time per image", "no reference was measured beside it")
    else:
        yield _judge(case, "time", "time per image", times[0], times[1], "x reference", factor)
    memory = [
        np.array([m for one in side for m in one.epochs.peak_memory_mib]) for side in (base, new)
    ]
    yield _judge(case, "memory", "peak memory", memory[0], memory[1], "MiB", factor)


def _times(side: Sequence[CaseSnapshot]) -> NDArray[np.float64] | None:
    """Return the time of an image in each epoch, as a multiple of the reference."""
    if not all(len(one.epochs.reference_s) == len(one.epochs.image_s) for one in side):
        return None
    return np.array(
        [
            image / reference
            for one in side
            for image, reference in zip(one.epochs.image_s, one.epochs.reference_s, strict=True)
        ]
    )


def _judge(
    case: str,
    kind: Kind,
    figure: str,
    base: NDArray[np.float64],
    new: NDArray[np.float64],
    unit: str,
    factor: float,
) -> Finding:
    """Call it worse where it is so by more than a factor, and a Mann-Whitney test agrees."""
    num = f"{len(base)} and {len(new)} epochs"
    if not (len(base) and len(new)) or _smallest_p(len(base), len(new)) > LEVEL:
        return not_compared(case, kind, figure, f"{num} after the first are too few")
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
        kind,
        figure,
        verdict,
        ours,
        theirs,
        f"{ours:.{digits}f} → {theirs:.{digits}f} {unit} ({found:.2f}x)",
        f"factor {factor:g}, Mann-Whitney p = {more:.2g} over {num}",
    )


def _smallest_p(num_base: int, num_new: int) -> float:
    """Return the p of a one-sided test where every value of one side is larger."""
    return 1 / math.comb(num_base + num_new, num_new)
