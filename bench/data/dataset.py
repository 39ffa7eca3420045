"""What every dataset answers: classes, splits, pairs of image and target, provenance."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.errors import UserError
from bench.lookup import USER_CODE_ERRORS

IGNORE_INDEX = 255
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Labels:
    """The classes of a dataset, in the order of their indices."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    @property
    def num_classes(self) -> int:
        """K, the number of classes; void is none of them."""
        return len(self.names)


@dataclass(frozen=True)
class Sample:
    """One image with its mask; both None where the dataset makes them."""

    id: str
    image: Path | None = None
    mask: Path | None = None


def identity(options: BaseModel) -> dict[str, Any]:
    """Dump what tells two settings apart, for hashing.

    Left out are fields marked `json_schema_extra={"identity": False}`, and those marked
    `{"added": True}` while they have their default: added after the first release, they must
    change no hash that was there before.
    """
    dumped = options.model_dump(mode="json")
    for name, field in type(options).model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict):
            continue
        at_default = getattr(options, name) == field.default
        if extra.get("identity") is False or (extra.get("added") and at_default):
            del dumped[name]
    return dumped


class Dataset(ABC):
    """A dataset that a suite can name; subclasses give the class attributes and three methods.

    Reading is pure: the same sample gives the same arrays in any process.
    """

    class Options(BaseModel):
        """What a suite may set; unknown keys are faults."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    title: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    citation: ClassVar[str]
    licence: ClassVar[str]
    layout: ClassVar[str] = ""
    needs_root: ClassVar[bool] = True
    version: ClassVar[int] = 1  # raised when the same files are read differently

    def __init__(self, root: Path | None, options: Any) -> None:
        self.name = type(self).__name__.lower()
        self.root = root
        self.options = options

    @classmethod
    @abstractmethod
    def labels(cls, options: Any) -> Labels:
        """Return names and colours of the classes; reads no files."""

    @abstractmethod
    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split in a fixed order.

        Raises:
            UserError: where files are missing.
        """

    @abstractmethod
    def read(self, sample: Sample) -> Pair:
        """Return image (H, W, 3) uint8 RGB and target (H, W) uint8, 0..K-1 or 255 for void.

        Raises:
            UserError: naming the file that cannot be read or does not fit.
        """

    def describe_split(self, split: str) -> str:
        """Name a split in a protocol; a partial set must say so."""
        return split

    def fingerprint(self, split: str) -> str:
        """Identify a split by its options, class names, ids and the sizes of its files in bytes."""
        options = json.dumps(identity(self.options), sort_keys=True)
        parts = [str(self.version), repr(self.labels(self.options).names), options]
        for sample in self.samples(split):
            sizes = [f.stat().st_size for f in (sample.image, sample.mask) if f is not None]
            parts.append(f"{sample.id} {sizes}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def checked(self, sample: Sample) -> Pair:
        """Read a sample and hold it to what `read` promises.

        Raises:
            UserError: naming the sample, for what a user's own dataset does wrong too.
        """
        try:
            image, target = self.read(sample)
            fault = _fault(image, target, self.labels(self.options).num_classes)
        except USER_CODE_ERRORS as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            raise UserError(f"{self.name}, sample {sample.id!r}: {fault}")
        return image, target

    def require_root(self) -> Path:
        """Return the folder of the files.

        Raises:
            UserError: where it was not given or is no folder, with the layout it should have.
        """
        if self.root is None:
            raise UserError(
                f"Dataset {self.name!r} has no folder. Give --root {self.name}=PATH, root: in the "
                f"suite, or put it at $BENCH_DATA/{self.name}."
            )
        if not self.root.is_dir():
            raise UserError(f"No folder {self.root} for dataset {self.name!r}. {self.layout}")
        return self.root


def _fault(image: Any, target: Any, num_classes: int) -> str:
    """Say what is wrong with a pair; nothing where it is as it should be."""
    for name, array, num_dims in (("image", image, 3), ("target", target, 2)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != num_dims:
            found = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", "")
            return f"the {name} is {found[0]} {found[1]}, not uint8 with {num_dims} dimensions."
    if image.shape != (*target.shape, 3):
        return f"image {image.shape} and target {target.shape} do not belong together."
    present = np.flatnonzero(np.bincount(target.ravel(), minlength=256)[num_classes:IGNORE_INDEX])
    if present.size:
        return f"label {present[0] + num_classes} outside the classes 0..{num_classes - 1} and 255."
    return ""
