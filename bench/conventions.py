"""One set of predictions under several conventions of mIoU and pixel accuracy; numpy only.

The official ones are those of `bench.scores`: one count over the whole split, void excluded, the
mean over classes that occur. Papers differ in all three, and so do their figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.scores import INTERSECTION, ON_VOID, PREDICTION, TRUTH

BACKGROUND, UNLABELED = "background", "unlabeled"


@dataclass(frozen=True)
class Convention:
    """How one number is made of the counts of many images.

    of: the mean IoU of classes, or the share of pixels that are right.
    over: what is counted together; the numbers of several images or batches are averaged.
    absent: what becomes of a class in neither truth nor prediction.
    void: whether void pixels are left out, or are background that may be missed.
    without: a class that is left out of the mean.
    """

    of: Literal["iou", "accuracy"] = "iou"
    over: Literal["split", "image", "batch"] = "split"
    absent: Literal["left out", "0"] = "left out"
    void: Literal["excluded", "background"] = "excluded"
    without: str | None = None


CONVENTIONS: Mapping[str, Convention] = {
    "miou_absent_0": Convention(absent="0"),
    "miou_no_background": Convention(without=BACKGROUND),
    "miou_no_unlabeled": Convention(without=UNLABELED),
    "miou_void_background": Convention(void="background"),
    "miou_image": Convention(over="image"),
    "miou_batch": Convention(over="batch"),
    "miou_image_absent_0_void_background": Convention(
        over="image", absent="0", void="background"
    ),  # fcn-resnet50-voc2007, section 7.4
    "miou_batch_void_background": Convention(
        over="batch", void="background"
    ),  # darrennet-voc2007: scikit-learn's macro average of each batch
    "pixel_accuracy_void_background": Convention(of="accuracy", void="background"),
}


def by_conventions(counts: NDArray[Any], names: Sequence[str], batch_size: int) -> dict[str, float]:
    """Score the same predictions under every convention.

    Args:
        counts: (N, 4, K) as `bench.scores` has them, in the order in which images were scored.
        names: of the K classes.
        batch_size: of the batches that some conventions average over; the last may be smaller.

    Returns:
        Values in 0..1; NaN where the classes have no background, or none of that name.
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
        return _mean_of_numbers(hit.sum(1), truth.sum(1))
    union = truth + predicted - hit
    iou = np.divide(hit, union, out=np.zeros(union.shape), where=union > 0)
    counted = np.array([name != convention.without for name in names]) & (
        (union > 0) | (convention.absent == "0")
    )
    return _mean_of_numbers(np.where(counted, iou, 0).sum(1), counted.sum(1))


def _mean_of_numbers(above: NDArray[Any], below: NDArray[Any]) -> float:
    """Average the ratios that there are."""
    there = below > 0
    return float((above[there] / below[there]).mean()) if there.any() else float("nan")


def _void_as(label: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts that there were if void pixels had been of a class."""
    on_void = counts[:, ON_VOID]
    changed = counts.copy()
    changed[:, TRUTH, label] += on_void.sum(1)
    changed[:, PREDICTION] += on_void
    changed[:, INTERSECTION, label] += on_void[:, label]
    changed[:, ON_VOID] = 0
    return changed
