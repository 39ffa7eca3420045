"""Scores from pixel counts; numpy only.

The official mIoU: one count over the whole split, void excluded, the mean over classes that
occur in truth or prediction. The other means are over the same classes, except
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
        counts: (N, 4, K) or (4, K): per class, the valid pixels of truth, prediction and
            intersection, and the predictions on void.

    Returns:
        Scores in 0..1; NaN if no pixel is valid.
    """
    return {name: float(value) for name, value in scores_of_totals(totals(counts)).items()}


def scores_of_totals(counted: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Score many counts at once: (..., 3 or 4, K) to arrays (...), as `scores` does."""
    truth, predicted, hit = (counted[..., row, :] for row in (TRUTH, PREDICTION, INTERSECTION))
    total = truth.sum(-1)
    present = (truth + predicted) > 0
    missed, wrong = truth - hit, predicted - hit
    negative = total[..., None] - truth
    dice = _mean(_ratio(2 * hit, truth + predicted), present)
    iou = _ratio(hit, truth + wrong)
    return {
        "miou": _mean(iou, present),
        "pixel_accuracy": _ratio(hit.sum(-1), total),
        "mean_pixel_accuracy": _mean(_ratio(hit, truth), truth > 0),
        "dice": dice,
        "f1": dice,
        "precision": _mean(_ratio(hit, predicted, empty=0.0), present),
        "sensitivity": _mean(_ratio(hit, hit + missed, empty=0.0), present),
        "specificity": _mean(_ratio(negative - wrong, negative, empty=0.0), present),
        "fw_iou": _ratio((truth * np.nan_to_num(iou)).sum(-1), total),
    }


def class_iou(counts: NDArray[Any]) -> NDArray[Any]:
    """Return the IoU of each class, (K,); NaN for classes in neither truth nor prediction."""
    return class_iou_of_totals(totals(counts))


def class_iou_of_totals(counted: NDArray[Any]) -> NDArray[np.float64]:
    """Return the IoU of each class of many counts at once: (..., 3 or 4, K) to (..., K)."""
    truth, predicted, hit = (counted[..., row, :] for row in (TRUTH, PREDICTION, INTERSECTION))
    return _ratio(hit, truth + predicted - hit)


def num_averaged(counts: NDArray[Any]) -> int:
    """Return how many classes the mean IoU averages over."""
    counted = totals(counts)
    return int(((counted[TRUTH] + counted[PREDICTION]) > 0).sum())


def constant_prediction(counts: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """Return the majority class of the truth, and the counts of always predicting it.

    The counts, given and returned, are (N, 4, K); those returned are int64.
    """
    per_image = np.asarray(counts, np.int64)
    truth = per_image[:, TRUTH]
    best = int(truth.sum(0).argmax())
    constant = np.zeros_like(per_image)
    constant[:, TRUTH] = truth
    constant[:, PREDICTION, best] = truth.sum(1)
    constant[:, INTERSECTION, best] = truth[:, best]
    constant[:, ON_VOID, best] = per_image[:, ON_VOID].sum(1)
    return best, constant


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Replace NaN, which JSON does not have, by None."""
    return {key: float(v) if np.isfinite(v) else None for key, v in values.items()}


def totals(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Add up the counts of all images, (4, K)."""
    counts = np.asarray(counts).astype(np.int64)
    return counts.sum(0) if counts.ndim == 3 else counts


def _ratio(above: Any, below: Any, empty: float = np.nan) -> NDArray[np.float64]:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    ratio: NDArray[np.float64] = np.full(below.shape, empty)
    np.divide(above, below, out=ratio, where=below > 0)
    return ratio


def _mean(values: NDArray[Any], counted: NDArray[Any]) -> NDArray[np.float64]:
    """Average what is counted over the last axis; NaN if nothing is."""
    return _ratio(np.where(counted, values, 0.0).sum(-1), counted.sum(-1))
