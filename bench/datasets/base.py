"""What every dataset answers: classes, splits, pairs of image and target, provenance."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bench.datasets.digests import digests
from bench.errors import UserError
from bench.lookup import USER_CODE_ERRORS, unknown
from bench.text import listed

IGNORE_INDEX = 255
READER_VERSION = 1  # raised when files are decoded, mapped or resized otherwise
Colour = tuple[int, int, int]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class FileFault(UserError):
    """A file of a dataset that cannot be used as it is.

    kind: what `bench data check` counts it as, such as "unreadable file".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, str(self))


@dataclass(frozen=True)
class Labels:
    """The classes of a dataset, in the order of their indices."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]

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

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that there should be."""
        return tuple(file for file in (self.image, self.mask) if file is not None)


class NoOptions(BaseModel):
    """What a suite may set; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OfficialOptions(NoOptions):
    """The option of every dataset whose splits have official sizes."""

    partial: bool = Field(False, description="accept a part of the official images")


class Dataset(ABC):
    """A dataset that a suite can name; subclasses give the class attributes and four methods.

    Reading is pure: the same sample gives the same arrays in any process.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions

    title: str
    splits: tuple[str, ...]
    citation: str
    licence: str
    layout: ClassVar[str] = ""
    needs_root: ClassVar[bool] = True
    version: ClassVar[int] = 1  # raised when the same files are read differently
    unions: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # splits that are made of others
    unhashed_options: ClassVar[tuple[str, ...]] = ()  # where files lie, and names for people
    later_options: ClassVar[tuple[str, ...]] = ()  # in no hash while they have their default
    withheld: Mapping[str, str] = {}  # splits whose labels are not public, and why

    def __init__(
        self,
        root: Path | None,
        options: Any,
        *,
        name: str | None = None,
        key: str | None = None,
        source: str | None = None,
    ) -> None:
        """Keep where the files are and what was asked; nothing is read yet.

        Args:
            root: folder of the files; None if there is none.
            options: an instance of `Options`.
            name: as messages have it; defaults to the class's.
            key: the suite's name for it; defaults to `name`.
            source: a hash of the code of a user's own dataset.
        """
        self.root = root
        self.options = options
        self.name = name or type(self).__name__.lower()
        self.key = key or self.name
        self.source = source
        self._complete: dict[str, Sequence[Sample]] = {}
        self._fingerprints: dict[str, str] = {}
        self.configure()

    def configure(self) -> None:
        """Set what the options decide, such as `title` or `splits`; reads no images."""

    @classmethod
    def identity(cls, options: BaseModel) -> dict[str, Any]:
        """Return what tells two settings of the options apart, for hashing.

        Options that were added later are left out while they have their default, so that hashes
        from before stay.
        """
        fields = type(options).model_fields
        left_out = {
            key for key in cls.later_options if getattr(options, key) == fields[key].default
        }
        left_out.update(cls.unhashed_options)
        return options.model_dump(mode="json", exclude=left_out)

    @classmethod
    @abstractmethod
    def labels(cls, options: Any) -> Labels:
        """Return names and colours of the classes; reads no images.

        Raises:
            UserError: where a file that names them cannot be read.
        """

    @abstractmethod
    def listed(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split in a fixed order, whether their files exist or not.

        Raises:
            UserError: where what lists them is missing or malformed.
        """

    @abstractmethod
    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return an image (H, W, 3) uint8 RGB.

        Raises:
            UserError: naming the file that cannot be read.
        """

    @abstractmethod
    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Return a target (H, W) uint8, 0..K-1 or 255 for void.

        Raises:
            UserError: naming the file that cannot be read or does not fit.
        """

    def read(self, sample: Sample) -> Pair:
        """Return image and target of a sample."""
        return self.read_image(sample), self.read_target(sample)

    @property
    def void(self) -> str:
        """Say in a protocol what void pixels count as."""
        return "excluded"

    def expected(self, split: str) -> int | None:
        """Return how many images a split has officially; None where nobody says."""
        return None

    def defined_by(self) -> Sequence[Path]:
        """Return files beside those of the samples that what is read depends on.

        Such as a table of colours, or the one file that holds all images.
        """
        return ()

    def unlisted(self) -> Sequence[Path]:
        """Return files that look like samples but belong to none; for `bench data check`."""
        return ()

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split, all of whose files exist; looked for once.

        Raises:
            UserError: where files are missing, or fewer or more samples than official.
        """
        if split not in self._complete:
            self._complete[split] = self._check_complete(split)
        return self._complete[split]

    def _check_complete(self, split: str) -> Sequence[Sample]:
        if split in self.withheld:
            raise UserError(f"{self.title}: {self.withheld[split]}")
        if split not in self.splits:
            raise UserError(f"{self.title}: {unknown('split', split, self.splits)}")
        samples = self.listed(split)
        missing = [file for sample in samples for file in sample.files if not file.is_file()]
        if missing:
            raise FileFault(
                "missing file",
                f"{self.name}, split {split!r}: no file {listed(missing, most=1)}. {self.layout}",
            )
        official = self.expected(split)
        if official not in (None, len(samples)) and not getattr(self.options, "partial", True):
            raise UserError(
                f"{self.title}: {split!r} has {len(samples)} images here, {official} officially. "
                "Complete the folder, or set partial: true on the dataset to use a part "
                f"(--set datasets.{self.key}.partial=true)."
            )
        return samples

    def describe_split(self, split: str) -> str:
        """Name a split in a protocol, and how much of it there is where that is not all."""
        num, official = len(self.samples(split)), self.expected(split)
        return split if official in (None, num) else f"{split} (part: {num} of {official})"

    def fingerprint(self, split: str) -> str:
        """Identify a split by its options, class names, ids and the contents of its files.

        Files are looked at once; another instance sees what changed since.
        """
        if split not in self._fingerprints:
            self._fingerprints[split] = self._identify(split)
        return self._fingerprints[split]

    def _identify(self, split: str) -> str:
        samples = self.samples(split)
        meaning = self.defined_by()
        files = [file for sample in samples for file in sample.files]
        contents = digests(self.root, [*meaning, *files])
        parts = [
            f"{READER_VERSION} {self.version} {self.source}",
            repr([contents[file] for file in meaning]),
            repr(self.labels(self.options).names),
            json.dumps(self.identity(self.options), sort_keys=True),
            *(f"{sample.id} {[contents[file] for file in sample.files]}" for sample in samples),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def checked(self, sample: Sample) -> Pair:
        """Read a sample and hold it to what `read` promises.

        Raises:
            UserError: naming the sample, for what a user's own dataset does wrong too.
        """
        try:
            image, target = self.read(sample)
        except USER_CODE_ERRORS as error:
            raise self._wrong(sample, f"{type(error).__name__}: {error}") from error
        self.hold(sample, image, target)
        return image, target

    def hold(self, sample: Sample, image: Any, target: Any) -> None:
        """Hold a pair to what `read` promises.

        Raises:
            FileFault: saying what is not as it should be.
        """
        fault = _fault(image, target, self.labels(self.options).num_classes)
        if fault:
            raise self._wrong(sample, fault)

    def _wrong(self, sample: Sample, fault: str) -> FileFault:
        return FileFault("wrong sample", f"{self.name}, sample {sample.id!r}: {fault}")

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
