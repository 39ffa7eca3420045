"""Class weights, and the pixel counts of the training split that they are computed from."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.datasets.base import IGNORE_INDEX, Dataset, Sample
from bench.errors import UserError
from bench.lookup import pick
from bench.machine.cache_folder import cache_folder
from bench.machine.environment import num_cores
from bench.machine.files import read_json, write_json

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class ClassCounts:
    """The number of valid pixels of each class.

    pixels: (K,) int64, over all images.
    image_pixels: (K,) int64, the valid pixels of the images that contain the class.
    images: (K,) int64, the number of those images.
    """

    pixels: NDArray[np.int64]
    image_pixels: NDArray[np.int64]
    images: NDArray[np.int64]


def inverse(counts: ClassCounts) -> Weights:
    """Return 1 / frequency, scaled to a sum of 1; 0 for a class that never occurs."""
    weights = _inverse_or_zero(counts.pixels.astype(np.float64))
    return np.asarray(weights / weights.sum())


def one_minus_frequency(counts: ClassCounts) -> Weights:
    """Return 1 - frequency."""
    return np.asarray(1 - counts.pixels / counts.pixels.sum())


def enet(counts: ClassCounts) -> Weights:
    """Return 1 / ln(1.02 + frequency): Paszke et al. 2016, arXiv 1606.02147."""
    return np.asarray(1 / np.log(1.02 + counts.pixels / counts.pixels.sum()))


def median_frequency(counts: ClassCounts) -> Weights:
    """Return median frequency / frequency; each counts only images that contain the class.

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
        UserError: for an unknown rule, or if every pixel is void.
    """
    weigh = pick("class_weights", rule, RULES)
    if not counts.pixels.any():
        raise UserError(f"class_weights {rule}: no pixel of the training images has a class.")
    return weigh(counts)


def class_counts(dataset: Dataset, split: str, samples: Sequence[Sample]) -> ClassCounts:
    """Count the valid pixels of each class over samples of a split, at the masks' resolution.

    Raises:
        UserError: if a mask cannot be read; the message names it.
    """
    text = "\n".join([dataset.fingerprint(split), *(sample.id for sample in samples)])
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = cache_folder() / "counts" / f"{name}.json"
    num_classes = dataset.labels(dataset.options).num_classes
    rows = read_json(file)
    if not isinstance(rows, list) or [len(row) for row in rows] != [num_classes] * 3:
        rows = _count(dataset, samples, num_classes)
        with suppress(UserError):  # if the cache cannot be written, continue without it
            write_json(file, rows, sync=False)
    return ClassCounts(*(np.array(row, np.int64) for row in rows))


def _count(dataset: Dataset, samples: Sequence[Sample], num_classes: int) -> list[list[int]]:
    def one(sample: Sample) -> NDArray[np.int64]:
        target = dataset.read_target(sample)
        found = np.bincount(target.ravel(), minlength=256)
        if found[num_classes:IGNORE_INDEX].any():
            raise UserError(
                f"{dataset.name}, sample {sample.id!r}: the mask has labels of no class."
            )
        return found[:num_classes]

    with ThreadPoolExecutor(num_cores()) as pool:  # decoding releases the GIL
        counts = np.stack(list(pool.map(one, samples)))
    present = counts > 0
    image_pixels = (present * counts.sum(1, keepdims=True)).sum(0)
    return [counts.sum(0).tolist(), image_pixels.tolist(), present.sum(0).tolist()]
