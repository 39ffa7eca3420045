"""The pixel counts of an evaluation, read back from disk."""

import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.records.case_folder import CaseFolder


@dataclass(frozen=True)
class StoredCounts:
    """What an evaluation counted: image ids, and (N, 4, K) as in `bench.evaluation.scores`."""

    ids: tuple[str, ...]
    per_image: NDArray[np.uint32]


def load_counts(folder: str | Path, evaluation: str) -> StoredCounts | None:
    """Read the counts of a case's evaluation; None if there are none.

    Warns if the file cannot be read.
    """
    file = CaseFolder(Path(folder)).evaluation(evaluation).with_suffix(".npz")
    if not file.exists():
        return None
    try:
        with np.load(file) as content:
            return StoredCounts(tuple(content["ids"].tolist()), content["per_image"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        warnings.warn(f"The counts in {file} cannot be read.", stacklevel=2)
        return None
