"""Counts of pixels to scores; numpy only.

The official mIoU: one count over the whole split, void excluded, the mean over classes that
occur in truth or prediction. The other means are over the same classes, but for
`mean_pixel_accuracy`, which is over classes that occur in the truth.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRUTH, PREDICTION, INTERSECTION, ON_VOID = range(4)
MIOU_CONVENTION = "whole split, void excluded, mean over classes in truth or prediction"


def scores(counts: NDArray[Any]) -> dict[str, float]:
    """Score a split.

    Args:
        counts: (N, 4, K) or (4, K): truth, prediction and intersection in valid pixels of each
            class, and predictions on void.

    Returns:
        Scores in 0..1; NaN where no pixel is valid.
    """
    truth, predicted, hit, total = _totals(counts)
    present = (truth + predicted) > 0
    union = truth + predicted - hit
    missed = truth - hit
    wrong = predicted - hit
    negative = total - truth
    dice = _mean(_ratio(2 * hit, truth + predicted)[present])
    iou = _ratio(hit, union)
    return {
        "miou": _mean(iou[present]),
        "pixel_accuracy": float(_ratio(hit.sum(), total)),
        "mean_pixel_accuracy": _mean(_ratio(hit, truth)[truth > 0]),
        "dice": dice,
        "f1": dice,
        "precision": _mean(_ratio(hit, predicted, empty=0.0)[present]),
        "sensitivity": _mean(_ratio(hit, hit + missed, empty=0.0)[present]),
        "specificity": _mean(_ratio(negative - wrong, negative, empty=0.0)[present]),
        "fw_iou": float(_ratio((truth * np.nan_to_num(iou)).sum(), total)),
    }


def class_iou(counts: NDArray[Any]) -> NDArray[Any]:
    """Return the IoU of each class, (K,); NaN for classes in neither truth nor prediction."""
    truth, predicted, hit, _ = _totals(counts)
    iou: NDArray[np.float64] = _ratio(hit, truth + predicted - hit)
    return iou


def num_averaged(counts: NDArray[Any]) -> int:
    """Return how many classes the mean IoU is over."""
    truth, predicted, _, _ = _totals(counts)
    return int(((truth + predicted) > 0).sum())


def constant_prediction(counts: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """Return the most frequent class of the truth, and the counts of always predicting it.

    Both counts are (N, 4, K).
    """
    per_image = np.asarray(counts, np.int64)
    truth = per_image[:, TRUTH]
    best = int(truth.sum(0).argmax())
    floor = np.zeros_like(per_image)
    floor[:, TRUTH] = truth
    floor[:, PREDICTION, best] = truth.sum(1)
    floor[:, INTERSECTION, best] = truth[:, best]
    floor[:, ON_VOID, best] = per_image[:, ON_VOID].sum(1)
    return best, floor


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values for JSON, which has no NaN: None in its place."""
    return {key: float(v) if np.isfinite(v) else None for key, v in values.items()}


def _totals(counts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], np.int64]:
    counts = np.asarray(counts).astype(np.int64)
    if counts.ndim == 3:
        counts = counts.sum(0)
    return counts[TRUTH], counts[PREDICTION], counts[INTERSECTION], counts[TRUTH].sum()


def _ratio(above: Any, below: Any, empty: float = np.nan) -> NDArray[Any]:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    ratio: NDArray[np.float64] = np.full(below.shape, empty)
    np.divide(above, below, out=ratio, where=below > 0)
    return ratio


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else float("nan")
