"""The content of records that is compared; saved as JSON, it is a baseline."""

import base64
import json
import re
import zlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from bench.errors import UserError
from bench.machine.files import write_text
from bench.suite.gate import Gate

MOST_SAVED = 20_000  # counts per evaluation that a baseline keeps: a few KB
# Innermost lists and objects, which a baseline has on one line each.
FLAT = re.compile(r"\[[^][{}]*\]|\{[^][{}]*\}")
FACTS = {  # keys of a record's complexity, and their names in messages
    "num_params": "parameters",
    "num_trainable": "trainable parameters",
    "num_unreached": "parameters without gradient",
    "shapes": "names and shapes of tensors",
    "size": "input size",
    "gmacs": "GMAC",
    "model_bytes": "bytes of the model",
    "checkpoint_bytes": "bytes of a checkpoint",
}
FINISHED = ("ok", "profiled")


class Strict(BaseModel):
    """Data of a baseline; unknown keys are errors."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


def _pack(counts: NDArray[np.uint32] | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    packed = zlib.compress(counts.astype("<u4").tobytes(), 9)
    return {"shape": counts.shape, "zlib_base64": base64.b64encode(packed).decode()}


def _unpack(value: Any) -> NDArray[np.uint32] | None:
    if value is None or isinstance(value, np.ndarray):
        return value
    try:
        raw = zlib.decompress(base64.b64decode(value["zlib_base64"]))
        return np.frombuffer(raw, "<u4").reshape(value["shape"])
    except (KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"counts cannot be read: {error}") from error


PerImage = Annotated[
    NDArray[np.uint32] | None,
    BeforeValidator(_unpack),
    PlainSerializer(_pack),
]


class Scored(Strict):
    """One evaluation of a case.

    totals: (4, K) pixels of the split, as in `bench.evaluation.scores`; None if not kept.
    per_image: (N, 4, K) uint32; None if not kept, or too large for a baseline.
    images: the beginning of the SHA-256 of the image ids, in order.
    """

    protocol: dict[str, Any]
    scores_version: int
    classes: tuple[str, ...]
    scores: dict[str, float | None]
    totals: tuple[tuple[int, ...], ...] | None = None
    images: str | None = None
    per_image: PerImage = None

    @model_validator(mode="after")
    def _counts_fit(self) -> "Scored":
        shape = (4, len(self.classes))
        if self.totals is not None and np.shape(self.totals) != shape:
            raise ValueError(f"totals must be {shape[0]} rows of {shape[1]} classes")
        if self.per_image is not None and self.per_image.shape[1:] != shape:
            raise ValueError(f"counts must be {shape[0]} rows of {shape[1]} classes per image")
        return self


class Epochs(Strict):
    """The complete epochs of a training without warm-up epochs, with one value per epoch.

    image_s: seconds of training per image.
    reference_s: of the reference in `bench.machine.clock`; empty if it was not measured.
    peak_memory_mib: empty if it was not measured.
    """

    image_s: tuple[PositiveFloat, ...] = ()
    reference_s: tuple[PositiveFloat, ...] = ()
    peak_memory_mib: tuple[PositiveFloat, ...] = ()

    @model_validator(mode="after")
    def _one_per_epoch(self) -> "Epochs":
        for measured in (self.reference_s, self.peak_memory_mib):
            if measured and len(measured) != len(self.image_s):
                raise ValueError("every list must have one value per epoch")
        return self


class CaseSnapshot(Strict):
    """What is compared of one case.

    asked: all settings that its numbers depend on, except defaults.
    model: the keys of dataset, model and recipe.
    software: versions by package; None if unknown.
    ran: its numerics.
    machine: with the precision; None if it is unknown or was shared with other cases.
    facts: counts that are the same on any machine.
    """

    id: str
    label: str
    model: tuple[str, str, str]
    seed: int
    status: str
    reason: str | None = None
    asked: dict[str, Any]
    ran: dict[str, Any] = {}
    software: dict[str, str | None]
    machine: str | None = None
    facts: dict[str, Any] = {}
    epochs: Epochs = Epochs()
    evaluations: dict[str, Scored] = {}


class Snapshot(Strict):
    """What is compared of the records of a suite.

    reported: the evaluations whose scores are compared, in the order of the suite.
    cases: by name.
    missing: names of cases without a record; empty in a baseline.
    folders: of the records; empty for a baseline.
    """

    version: Literal[1] = 1
    suite: str
    made: str
    gate: Gate = Gate()
    reported: tuple[str, ...] = ()
    cases: dict[str, CaseSnapshot] = {}
    missing: tuple[str, ...] = Field((), exclude=True)
    folders: tuple[Path, ...] = Field((), exclude=True)

    def only(self, pattern: str) -> "Snapshot":
        """Return the cases whose name matches a glob."""
        cases = {name: case for name, case in self.cases.items() if fnmatchcase(name, pattern)}
        missing = tuple(name for name in self.missing if fnmatchcase(name, pattern))
        return self.model_copy(update={"cases": cases, "missing": missing})


def save(snapshot: Snapshot, file: Path) -> None:
    """Write a baseline that is small enough to be committed.

    Counts per image are left out if they are many, or if the evaluation is not reported.
    """
    small = snapshot.model_copy(deep=True)
    for case in small.cases.values():
        for name, scored in case.evaluations.items():
            num = 0 if scored.per_image is None else scored.per_image.size
            if num > MOST_SAVED or name not in snapshot.reported:
                scored.per_image = None
    content = json.dumps(small.model_dump(mode="json"), indent=1)
    write_text(file, FLAT.sub(lambda found: " ".join(found[0].split()), content) + "\n")


def read_baseline(file: Path) -> Snapshot:
    """Read a baseline.

    Raises:
        UserError: if the file cannot be read or is not a baseline.
    """
    try:
        return Snapshot.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{file} is not a baseline ({place}: {first['msg']}). Write one with bench baseline "
            "save SUITE."
        ) from error
