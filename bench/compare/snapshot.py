"""What two sets of records are compared by; saved as JSON it is a baseline."""

import base64
import csv
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from bench.atomic import write_text
from bench.case import Case
from bench.errors import UserError
from bench.frame import load_counts, machine_of
from bench.gate_spec import Gate
from bench.record import (
    CaseFolder,
    EvaluationRecord,
    Profile,
    Record,
    now,
    read_evaluations,
    read_record,
)
from bench.sources import Source

MOST_SAVED = 20_000  # counts of an evaluation that a baseline keeps: some KB
ASKED = ("dataset", "train_split", "model", "source", "recipe", "limit", "select_split")
NOT_ASKED = {"root", "label"}
OF_EPOCHS = {"steps", "warm_up", "images_per_s"}  # columns of a history
FLAT = re.compile(r"\[[^][{}]*\]|\{[^][{}]*\}")  # without others within: a line of a baseline
FACTS = (
    "num_params",
    "num_trainable",
    "num_unreached",
    "shapes",
    "size",
    "gmacs",
    "model_bytes",
    "checkpoint_bytes",
)


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
        raise ValueError(f"no counts: {error}") from error


PerImage = Annotated[
    NDArray[np.uint32] | None,
    BeforeValidator(_unpack),
    PlainSerializer(_pack),
    WithJsonSchema({"type": ["object", "null"]}),
]


class Scored(BaseModel):
    """One evaluation of a case.

    totals: (4, K) pixels of the split, as `bench.scores` has them; None where none were kept.
    per_image: (N, 4, K) uint32; None where none were kept, or too many for a baseline.
    images: the beginning of the SHA-256 of the ids, in their order.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    is_reported: bool
    protocol: dict[str, Any]
    scores_version: int
    classes: tuple[str, ...]
    scores: dict[str, float | None]
    totals: tuple[tuple[int, ...], ...] | None = None
    images: str | None = None
    per_image: PerImage = None


class Epochs(BaseModel):
    """The epochs of a training but the first, a value each.

    image_s: seconds of training an image.
    reference_s: of `bench.reference`, measured beside it.
    """

    image_s: tuple[float, ...] = ()
    reference_s: tuple[float, ...] = ()
    peak_memory_mib: tuple[float, ...] = ()


class CaseSnapshot(BaseModel):
    """What one case left.

    asked: everything that its numbers depend on, but what is as by default.
    machine: with the precision; None where it was not alone there.
    facts: counts that hold on any machine.
    """

    id: str
    label: str
    model: tuple[str, str, str]
    seed: int
    status: str
    reason: str | None = None
    asked: dict[str, Any]
    software: dict[str, str | None]
    machine: str | None = None
    facts: dict[str, Any] = {}
    epochs: Epochs = Epochs()
    evaluations: dict[str, Scored] = {}


class Snapshot(BaseModel):
    """What the records of a suite say that can get worse.

    cases: by name.
    missing: the names of cases without a record.
    """

    version: int = 1
    suite: str
    made: str
    gate: Gate = Gate()
    cases: dict[str, CaseSnapshot] = {}
    missing: tuple[str, ...] = ()

    def only(self, pattern: str) -> "Snapshot":
        """Return the cases whose name matches a glob."""
        cases = {name: case for name, case in self.cases.items() if fnmatchcase(name, pattern)}
        missing = tuple(name for name in self.missing if fnmatchcase(name, pattern))
        return self.model_copy(update={"cases": cases, "missing": missing})


def of_records(source: Source) -> Snapshot:
    """Read what a suite's cases left.

    Raises:
        UserError: for a record that cannot be read.
    """
    suite = source.resolved.suite
    reported = [name for name, e in suite.scored.items() if e.split in suite.splits.report]
    cases, missing = {}, []
    for case in source.resolved.cases:
        found = next(filter(None, (_read(f / case.folder, reported) for f in source.folders)), None)
        if found is None:
            missing.append(case.name)
        else:
            cases[case.name] = found
    return Snapshot(
        suite=source.title, made=now(), gate=suite.gate, cases=cases, missing=tuple(missing)
    )


def _read(folder: Path, reported: list[str]) -> CaseSnapshot | None:
    """Read a case's record, or its profile where it has no more."""
    record = read_record(folder)
    if record is None:
        return _of_profile(CaseFolder(folder).profile)
    snapshot = _common(record.case, record.environment, record.complexity)
    snapshot |= {"id": record.id, "status": record.status, "reason": record.reason}
    if record.status != "ok" or record.training is None:
        return CaseSnapshot(**snapshot)
    evaluations = read_evaluations(folder)
    return CaseSnapshot(
        **snapshot,
        machine=_machine(record),
        epochs=_epochs(CaseFolder(folder).history, record),
        evaluations={e.name: _scored(folder, e, e.name in reported) for e in evaluations},
    )


def _of_profile(file: Path) -> CaseSnapshot | None:
    try:
        profile = Profile.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise UserError(f"{file} is no profile; bench profile makes it again.") from error
    common = _common(profile.case, profile.environment, profile.complexity)
    return CaseSnapshot(**common, id=profile.id, status="profiled", reason=None)


def _common(
    case: Case, environment: Mapping[str, Any], complexity: Mapping[str, Any]
) -> dict[str, Any]:
    asked = {key: _told(getattr(case, key)) for key in ASKED if getattr(case, key) is not None}
    weights = case.model.weights
    if weights is not None and weights.sha256:  # known by its content, wherever it lies
        asked["model"]["weights"] = {"part": weights.part, "sha256": weights.sha256}
    git = environment.get("git") or {}
    return {
        "label": case.label,
        "model": (case.dataset_name, case.model_name, case.recipe_name),
        "seed": case.seed,
        "asked": asked,
        "software": {
            "bench": environment.get("bench"),
            "commit": git.get("commit"),
            **environment.get("packages", {}),
        },
        "facts": {name: complexity[name] for name in FACTS if name in complexity},
    }


def _told(value: Any) -> Any:
    """Dump what was asked, but for what is as by default; a name always tells what is meant."""
    if isinstance(value, BaseModel):
        told = {
            key: getattr(value, key)
            for key, field in type(value).model_fields.items()
            if key == "name" or getattr(value, key) != field.get_default(call_default_factory=True)
        } | (value.model_extra or {})
        return {key: _told(one) for key, one in told.items() if key not in NOT_ASKED}
    if isinstance(value, tuple | list):
        return [_told(one) for one in value]
    return {key: _told(one) for key, one in value.items()} if isinstance(value, dict) else value


def _machine(record: Record) -> str | None:
    """Name what times can be compared on; None where others shared it."""
    if record.training is None or record.training.num_sharing > 1:
        return None
    machine = machine_of(record.numerics, record.environment)
    return f"{machine}, {record.numerics.get('precision')}"


def _epochs(file: Path, record: Record) -> Epochs:
    """Read the times of the whole epochs that were no warm-up."""
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    except OSError:
        return Epochs()
    if not rows or not rows[0].keys() >= OF_EPOCHS:  # of an older version
        return Epochs()
    steps = max(int(row["steps"]) for row in rows)
    timed = [row for row in rows if row["warm_up"] == "False" and int(row["steps"]) == steps]
    return Epochs(
        image_s=tuple(1 / float(row["images_per_s"]) for row in timed),
        reference_s=_column(timed, "reference_s"),
        peak_memory_mib=_column(timed, "peak_memory_mib"),
    )


def _column(rows: list[dict[str, str]], name: str) -> tuple[float, ...]:
    """Return a column of a history; nothing where it was not measured in every epoch."""
    if not all(row.get(name) for row in rows):
        return ()
    return tuple(float(row[name]) for row in rows)


def _scored(folder: Path, evaluation: EvaluationRecord, is_reported: bool) -> Scored:
    counts = load_counts(folder, evaluation.name)
    if counts is None:
        kept: dict[str, Any] = {}
    else:
        ids = hashlib.sha256("\n".join(counts.ids).encode()).hexdigest()[:16]
        totals = counts.per_image.astype(np.int64).sum(0).tolist()
        kept = {"totals": totals, "images": ids, "per_image": counts.per_image}
    return Scored(
        is_reported=is_reported,
        protocol=evaluation.protocol,
        scores_version=evaluation.version,
        classes=tuple(evaluation.class_iou),
        scores=evaluation.scores,
        **kept,
    )


def save(snapshot: Snapshot, file: Path) -> None:
    """Write a baseline, small enough to be committed.

    Counts of images stay out where they are many, or of a split that is not reported.
    """
    small = snapshot.model_copy(deep=True)
    for case in small.cases.values():
        for scored in case.evaluations.values():
            num = 0 if scored.per_image is None else scored.per_image.size
            if num > MOST_SAVED or not scored.is_reported:
                scored.per_image = None
    content = json.dumps(small.model_dump(mode="json", exclude_none=True), indent=1)
    write_text(file, FLAT.sub(lambda found: " ".join(found[0].split()), content) + "\n")


def read_baseline(file: Path) -> Snapshot:
    """Read a baseline.

    Raises:
        UserError: where the file is none.
    """
    try:
        return Snapshot.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    except ValidationError as error:
        raise UserError(f"{file} is no baseline; bench baseline save SUITE writes one.") from error
