"""Pixels of each class in a list of samples: read once, remembered by fingerprint."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bench.atomic import read_json, write_json
from bench.class_weights import ClassCounts
from bench.data.cache_folder import cache_folder
from bench.data.dataset import IGNORE_INDEX, Dataset, Sample
from bench.data.loading import num_cores
from bench.errors import UserError


def class_counts(dataset: Dataset, split: str, samples: Sequence[Sample]) -> ClassCounts:
    """Count the valid pixels of each class over samples of a split, at the masks' resolution.

    Raises:
        UserError: naming a mask that cannot be read.
    """
    text = "\n".join([dataset.fingerprint(split), *(sample.id for sample in samples)])
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = cache_folder() / "counts" / f"{name}.json"
    num_classes = dataset.labels(dataset.options).num_classes
    rows = read_json(file)
    if not isinstance(rows, list) or [len(row) for row in rows] != [num_classes] * 3:
        rows = _count(dataset, samples, num_classes)
        with suppress(UserError):  # where the cache cannot be written, nothing is remembered
            write_json(file, rows, sync=False)
    return ClassCounts(*(np.array(row, np.int64) for row in rows))


def _count(dataset: Dataset, samples: Sequence[Sample], num_classes: int) -> list[list[int]]:
    def one(sample: Sample) -> NDArray[np.int64]:
        target = dataset.read_target(sample)
        found = np.bincount(target.ravel(), minlength=256)
        if found[num_classes:IGNORE_INDEX].any():
            raise UserError(f"{dataset.name}, sample {sample.id!r}: labels outside the classes.")
        return found[:num_classes]

    with ThreadPoolExecutor(num_cores()) as pool:  # decoding frees the interpreter
        counts = np.stack(list(pool.map(one, samples)))
    present = counts > 0
    image_pixels = (present * counts.sum(1, keepdims=True)).sum(0)
    return [counts.sum(0).tolist(), image_pixels.tolist(), present.sum(0).tolist()]
