"""The interface of every dataset: classes, splits, pairs of image and target, provenance."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.datasets.digests import digests
from bench.errors import UserError
from bench.lookup import USER_CODE_ERRORS, unknown
from bench.text import listed
from bench.truth_values import mark_truth_values

IGNORE_INDEX = 255
READER_VERSION = 1  # raise it when files are decoded, mapped or resized differently
Colour = tuple[int, int, int]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class FileFault(UserError):
    """A file of a dataset that cannot be used as it is.

    kind: the heading that `bench data check` lists it under, such as "unreadable file".
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
        """K, the number of classes without void."""
        return len(self.names)


@dataclass(frozen=True)
class Sample:
    """One image and its mask; both are None if the dataset generates them."""

    id: str
    image: Path | None = None
    mask: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that should exist."""
        return tuple(file for file in (self.image, self.mask) if file is not None)


class BaseOptions(BaseModel):
    """Base class of a dataset's options; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _mark_truth_values(cls, value: Any) -> Any:
        return mark_truth_values(cls, value)


class OfficialOptions(BaseOptions):
    """Base class of the options of datasets whose splits have official sizes."""

    partial: bool = Field(
        False, description="accept splits that do not have the official number of images"
    )


class Dataset(ABC):
    """Base class of datasets; subclasses define the class attributes and four methods.

    Reading is pure: the same sample gives the same arrays in any process.
    """

    Options: ClassVar[type[BaseModel]] = BaseOptions

    title: str
    splits: tuple[str, ...]
    citation: str
    licence: str
    layout: ClassVar[str] = ""
    needs_root: ClassVar[bool] = True
    version: ClassVar[int] = 1  # raise it when the same files are read differently
    unions: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # splits that combine others
    unhashed_options: ClassVar[tuple[str, ...]] = ()  # in no hash, such as locations and titles
    later_options: ClassVar[tuple[str, ...]] = ()  # hashed only if they are not at their default
    withheld: Mapping[str, str] = {}  # splits whose labels are not public, and what to do

    def __init__(
        self,
        root: Path | None,
        options: Any,
        *,
        name: str | None = None,
        key: str | None = None,
        source: str | None = None,
        suite_folder: Path | None = None,
    ) -> None:
        """Store the folder and the options; nothing is read yet.

        Args:
            root: folder of the files; None if there is none.
            options: an instance of `Options`.
            name: used in messages; defaults to the class name in lower case.
            key: its key in the suite; defaults to `name`.
            source: a hash of the code of a user's own dataset.
            suite_folder: where lists are looked for if they are not in the root.
        """
        self.root = root
        self.options = options
        self.name = name or type(self).__name__.lower()
        self.key = key or self.name
        self.source = source
        self.suite_folder = suite_folder
        self._complete: dict[str, Sequence[Sample]] = {}
        self._fingerprints: dict[str, str] = {}
        self.configure()

    def configure(self) -> None:  # noqa: B027 - most datasets have nothing to set
        """Set what depends on the options, such as `title` or `splits`; reads no images."""

    @classmethod
    def identity(cls, options: BaseModel) -> dict[str, Any]:
        """Return the options that are hashed.

        Options that were added later are left out at their default, so that older hashes stay
        valid.
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
        """Return the names and colours of the classes; reads no images.

        Raises:
            UserError: if a file that names them cannot be read.
        """

    @abstractmethod
    def listed(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split in a fixed order, whether or not their files exist.

        Raises:
            UserError: if the list or folder that they come from is missing or malformed.
        """

    @abstractmethod
    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return an image (H, W, 3) uint8 RGB.

        Raises:
            UserError: if the file cannot be read; the message names it.
        """

    @abstractmethod
    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Return a target (H, W) uint8, 0..K-1 or 255 for void.

        Raises:
            UserError: if the file cannot be read or is wrong; the message names it.
        """

    def read(self, sample: Sample) -> Pair:
        """Return the image and the target of a sample."""
        return self.read_image(sample), self.read_target(sample)

    @property
    def void(self) -> str:
        """How a protocol describes void pixels, such as "excluded"."""
        return "excluded"

    def expected(self, split: str) -> int | None:
        """Return the official number of images in a split; None if there is none."""
        return None

    def defined_by(self) -> Sequence[Path]:
        """Return the other files that the arrays depend on, besides those of the samples.

        For example a table of colours, or one file that holds all images.
        """
        return ()

    def unlisted(self) -> Sequence[Path]:
        """Return files that look like samples but are in no split; for `bench data check`."""
        return ()

    def shared_masks(self) -> Mapping[Path, Sequence[Path]]:
        """Return the masks that belong to several images, with these images."""
        return {}

    def lies_beside(self) -> str:
        """Say which kinds of files lie beside the samples and are left out on purpose."""
        return ""

    def remark(self) -> str:
        """Say how many files are left out or used twice; nothing if all is as it should be."""
        return ""

    def beside_suite(self, file: Path, name: str) -> Path:
        """Return a file if it exists, else one of this name beside the suite if that exists."""
        if not file.exists() and self.suite_folder is not None:
            other = self.suite_folder / name
            return other if other.exists() else file
        return file

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split, after checking once that all their files exist.

        Raises:
            UserError: if the split is unknown or withheld, files are missing, or the number of
                samples is not the official one and `partial` is not set.
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
                f"{self.title}: {split!r} has {len(samples)} images; the official split has "
                f"{official}. Complete the folder, or set partial: true on the dataset to use it "
                f"as it is (--set datasets.{self.key}.partial=true)."
            )
        return samples

    def describe_split(self, split: str) -> str:
        """Return the name of a split for a protocol, with its size if it is only a part."""
        num, official = len(self.samples(split)), self.expected(split)
        return split if official in (None, num) else f"{split} (part: {num} of {official})"

    def fingerprint(self, split: str) -> str:
        """Return a hash of a split: its options, class names, ids and file contents.

        It is computed once per instance; a new instance sees later changes of the files.
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
        """Read a sample and check its shapes, dtypes and labels.

        Raises:
            UserError: naming the sample, also for errors in the code of a user's own dataset.
        """
        try:
            image, target = self.read(sample)
        except USER_CODE_ERRORS as error:
            raise self._wrong(sample, f"{type(error).__name__}: {error}") from error
        self.check_pair(sample, image, target)
        return image, target

    def check_pair(self, sample: Sample, image: Any, target: Any) -> None:
        """Check the shapes, dtypes and labels of a pair.

        Raises:
            FileFault: saying what is wrong.
        """
        fault = _fault(image, target, self.labels(self.options).num_classes)
        if fault:
            raise self._wrong(sample, fault)

    def _wrong(self, sample: Sample, fault: str) -> FileFault:
        return FileFault("wrong sample", f"{self.name}, sample {sample.id!r}: {fault}")

    @property
    def is_missing(self) -> bool:
        """Whether the dataset needs a folder that does not exist."""
        return self.needs_root and (self.root is None or not self.root.is_dir())

    def require_root(self) -> Path:
        """Return the folder of the files.

        Raises:
            UserError: if it was not given or is not a folder; the message shows the layout.
        """
        if self.root is None:
            raise UserError(
                f"Dataset {self.name!r} has no folder. Give --root {self.name}=PATH or root: in "
                f"the suite, or put it at $BENCH_DATA/{self.name}."
            )
        if not self.root.is_dir():
            raise UserError(f"No folder {self.root} for dataset {self.name!r}. {self.layout}")
        return self.root


def _fault(image: Any, target: Any, num_classes: int) -> str:
    """Return what is wrong with a pair, or an empty string."""
    for name, array, num_dims in (("image", image, 3), ("target", target, 2)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != num_dims:
            found = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", "")
            return f"the {name} is {found[0]} {found[1]}, not uint8 with {num_dims} dimensions."
    if image.shape != (*target.shape, 3):
        return f"image {image.shape} and target {target.shape} have different sizes."
    present = np.flatnonzero(np.bincount(target.ravel(), minlength=256)[num_classes:IGNORE_INDEX])
    if present.size:
        return (
            f"label {present[0] + num_classes} is not a class (0..{num_classes - 1}) or void (255)."
        )
    return ""
