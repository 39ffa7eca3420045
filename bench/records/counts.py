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
class Counts:
    """What an evaluation counted: image ids, and (N, 4, K) as `bench.scores` has them."""

    ids: tuple[str, ...]
    per_image: NDArray[np.uint32]


def load_counts(folder: str | Path, evaluation: str) -> Counts | None:
    """Read the counts of a case's evaluation; None where there are none.

    A file that cannot be read is warned of.
    """
    file = CaseFolder(Path(folder)).evaluation(evaluation).with_suffix(".npz")
    if not file.exists():
        return None
    try:
        with np.load(file) as content:
            return Counts(tuple(content["ids"].tolist()), content["per_image"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        warnings.warn(f"{file} has no counts that can be read.", stacklevel=2)
        return None
