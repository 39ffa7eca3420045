"""Class weights from how often each class occurs in the training split; numpy only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.lookup import pick

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class ClassCounts:
    """How many valid pixels each class has.

    pixels: (K,) int64, over all images.
    image_pixels: (K,) int64, the valid pixels of the images that the class occurs in.
    images: (K,) int64, the number of those images.
    """

    pixels: NDArray[np.int64]
    image_pixels: NDArray[np.int64]
    images: NDArray[np.int64]


def inverse(counts: ClassCounts) -> Weights:
    """1 / frequency, of sum 1; 0 for a class that never occurs."""
    weights = _inverse_or_zero(counts.pixels.astype(np.float64))
    return np.asarray(weights / weights.sum())


def one_minus_frequency(counts: ClassCounts) -> Weights:
    """1 - frequency."""
    return np.asarray(1 - counts.pixels / counts.pixels.sum())


def enet(counts: ClassCounts) -> Weights:
    """1 / ln(1.02 + frequency): Paszke et al. 2016, arXiv 1606.02147."""
    return np.asarray(1 / np.log(1.02 + counts.pixels / counts.pixels.sum()))


def median_frequency(counts: ClassCounts) -> Weights:
    """Median frequency / frequency, frequencies within the images that the class occurs in.

    Eigen and Fergus 2015, arXiv 1411.4734. 0 for a class that never occurs.
    """
    present = counts.pixels > 0
    frequency = np.zeros(len(present))
    frequency[present] = counts.pixels[present] / counts.image_pixels[present]
    return np.asarray(np.median(frequency[present]) * _inverse_or_zero(frequency))


def _inverse_or_zero(values: Weights) -> Weights:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


RULES: dict[str, Callable[[ClassCounts], Weights]] = {
    "inverse": inverse,
    "one_minus_frequency": one_minus_frequency,
    "enet": enet,
    "median_frequency": median_frequency,
}


def class_weights(rule: str, counts: ClassCounts) -> Weights:
    """Return the weight of each class, (K,), by one of the rules.

    Raises:
        UserError: for an unknown rule, and where every pixel is void.
    """
    weigh = pick("class_weights", rule, RULES)
    if not counts.pixels.any():
        raise UserError(f"class_weights {rule}: no pixel of the training images has a class.")
    return weigh(counts)
