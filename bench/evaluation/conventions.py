"""Score predictions under several conventions of mIoU and pixel accuracy; numpy only.

The official ones are those of `bench.evaluation.scores`: one count over the whole split, void
excluded, the mean over classes that occur. Papers differ in all three, and so do their numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.scores import INTERSECTION, ON_VOID, PREDICTION, TRUTH
from bench.suite.columns import BACKGROUND, CONVENTIONS, Convention


def by_conventions(counts: NDArray[Any], names: Sequence[str], batch_size: int) -> dict[str, float]:
    """Score the same predictions under every convention.

    Args:
        counts: (N, 4, K) as for `bench.evaluation.scores`, in the order of scoring.
        names: names of the K classes.
        batch_size: for conventions that average over batches; the last batch may be smaller.

    Returns:
        Values in 0..1; NaN if the convention needs a class, such as background, that is missing.
    """
    per_image = np.asarray(counts, np.int64)
    return {
        name: _value(convention, per_image, list(names), batch_size)
        for name, convention in CONVENTIONS.items()
    }


def _value(
    convention: Convention, counts: NDArray[np.int64], names: list[str], batch_size: int
) -> float:
    if convention.void == "background":
        if BACKGROUND not in names:
            return float("nan")
        counts = _void_as(names.index(BACKGROUND), counts)
    if convention.without is not None and convention.without not in names:
        return float("nan")
    together = {"split": max(1, len(counts)), "image": 1, "batch": batch_size}[convention.over]
    summed = np.add.reduceat(counts, range(0, len(counts), together), axis=0)
    truth, predicted, hit = (summed[:, row] for row in (TRUTH, PREDICTION, INTERSECTION))
    if convention.of == "accuracy":
        return _mean_of_ratios(hit.sum(1), truth.sum(1))
    union = truth + predicted - hit
    iou = np.divide(hit, union, out=np.zeros(union.shape), where=union > 0)
    counted = np.array([name != convention.without for name in names]) & (
        (union > 0) | (convention.absent == "0")
    )
    return _mean_of_ratios(np.where(counted, iou, 0).sum(1), counted.sum(1))


def _mean_of_ratios(above: NDArray[Any], below: NDArray[Any]) -> float:
    """Average the ratios that are defined."""
    defined = below > 0
    return float((above[defined] / below[defined]).mean()) if defined.any() else float("nan")


def _void_as(label: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts as if void pixels were of one class."""
    on_void = counts[:, ON_VOID]
    changed = counts.copy()
    changed[:, TRUTH, label] += on_void.sum(1)
    changed[:, PREDICTION] += on_void
    changed[:, INTERSECTION, label] += on_void[:, label]
    changed[:, ON_VOID] = 0
    return changed
