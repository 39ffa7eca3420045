"""Read the records on disk into a snapshot."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from bench.compare.snapshot import FACTS, CaseSnapshot, Epochs, Scored, Snapshot
from bench.errors import UserError
from bench.machine.numerics import read_numerics
from bench.records.case_folder import CaseFolder
from bench.records.counts import load_counts
from bench.records.frame import machine_of
from bench.records.history import Row, read_history
from bench.records.record import (
    EvaluationRecord,
    Profile,
    Record,
    now,
    read_evaluations,
    read_record,
)
from bench.records.sources import Source
from bench.suite.case import Case

ASKED = ("dataset", "train_split", "model", "source", "recipe", "limit", "select_split")
NOT_ASKED = {"root", "suite_folder", "label"}
OF_EPOCHS = {"steps", "warm_up", "images_per_s"}  # columns of a history


def of_records(source: Source) -> Snapshot:
    """Read the records of a suite's cases.

    Raises:
        UserError: if a record cannot be read.
    """
    suite = source.resolved.suite
    cases, missing = {}, []
    for case in source.resolved.cases:
        found = next(filter(None, (_read(f / case.folder) for f in source.folders)), None)
        if found is None:
            missing.append(case.name)
        else:
            cases[case.name] = found
    return Snapshot(
        suite=source.title,
        made=now(),
        gate=suite.gate,
        reported=tuple(name for name, e in suite.scored.items() if e.split in suite.splits.report),
        cases=cases,
        missing=tuple(missing),
        folders=source.folders,
    )


def _read(folder: Path) -> CaseSnapshot | None:
    """Read the record of a case, or its profile if it has no record."""
    record = read_record(folder)
    if record is None:
        return _of_profile(CaseFolder(folder).profile())
    snapshot = _common(record.case, record.environment, record.complexity)
    snapshot |= {"id": record.id, "status": record.status, "reason": record.reason}
    if record.status != "ok" or record.training is None:
        return CaseSnapshot(**snapshot)
    evaluations = read_evaluations(folder)
    return CaseSnapshot(
        **snapshot,
        ran=record.numerics,
        machine=_machine(record),
        epochs=_epochs(CaseFolder(folder).history),
        evaluations={e.name: _scored(folder, e) for e in evaluations},
    )


def _of_profile(file: Path) -> CaseSnapshot | None:
    try:
        profile = Profile.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise UserError(f"{file} is not a profile; make it again with bench profile.") from error
    common = _common(profile.case, profile.environment, profile.complexity)
    return CaseSnapshot(**common, id=profile.id, status="profiled", reason=None)


def _common(
    case: Case, environment: Mapping[str, Any], complexity: Mapping[str, Any]
) -> dict[str, Any]:
    asked = {
        key: _without_defaults(getattr(case, key))
        for key in ASKED
        if getattr(case, key) is not None
    }
    weights = case.model.weights
    if weights is not None and weights.sha256:  # identified by content, wherever the file is
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


def _without_defaults(value: Any) -> Any:
    """Dump settings without defaults; a model with a field `name` is dumped in full."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        parts = {key: getattr(value, key) for key in fields}
        kept = {
            key: part
            for key, part in parts.items()
            if "name" in fields
            or hasattr(part, "name")
            or part != fields[key].get_default(call_default_factory=True)
        } | (value.model_extra or {})
        return {key: _without_defaults(one) for key, one in kept.items() if key not in NOT_ASKED}
    if isinstance(value, tuple | list):
        return [_without_defaults(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_defaults(one) for key, one in value.items()}
    return value


def _machine(record: Record) -> str | None:
    """Name the machine, with what makes it fast; None if it is unknown or was shared."""
    machine = machine_of(record.numerics, record.environment)
    if machine is None or record.training is None or record.training.num_sharing > 1:
        return None
    ran = read_numerics(record.numerics)
    levers: list[str] = [ran.precision]
    levers += [] if ran.memory_format == "contiguous" else [ran.memory_format]
    levers += [] if ran.compile is None else [f"compiled ({ran.compile})"]
    return ", ".join([machine, *levers])


def _epochs(file: Path) -> Epochs:
    """Read times and memory of complete epochs, without warm-up epochs.

    Warns if the history cannot be read.
    """
    try:
        rows = read_history(file)
    except UserError as error:
        warnings.warn(str(error), stacklevel=2)
        return Epochs()
    if not rows or not rows[0].keys() >= OF_EPOCHS:  # from an older version
        return Epochs()
    steps = max(row["steps"] for row in rows)
    timed = [row for row in rows if not row["warm_up"] and row["steps"] == steps]
    speeds = _column(timed, "images_per_s")
    try:
        return Epochs(
            image_s=tuple(1 / speed for speed in speeds),
            reference_s=_column(timed, "reference_s"),
            peak_memory_mib=_column(timed, "peak_memory_mib"),
        )
    except (ValidationError, ZeroDivisionError):
        warnings.warn(
            f"{file} has times or memory that are missing or not positive; they are left out.",
            stacklevel=2,
        )
        return Epochs()


def _column(rows: Sequence[Row], name: str) -> tuple[float, ...]:
    """Return a column of a history, or () if it was not measured in every epoch."""
    values = tuple(row.get(name, math.nan) for row in rows)
    return () if any(map(math.isnan, values)) else values


def _scored(folder: Path, evaluation: EvaluationRecord) -> Scored:
    counts = load_counts(folder, evaluation.name)
    if counts is None:
        kept: dict[str, Any] = {}
    else:
        ids = hashlib.sha256("\n".join(counts.ids).encode()).hexdigest()[:16]
        totals = counts.per_image.astype(np.int64).sum(0).tolist()
        kept = {"totals": totals, "images": ids, "per_image": counts.per_image}
    return Scored(
        protocol=evaluation.protocol,
        scores_version=evaluation.version,
        classes=tuple(evaluation.class_iou),
        scores=evaluation.scores,
        **kept,
    )
