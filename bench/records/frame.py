"""Read records and profiles into tidy DataFrames."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from bench.errors import UserError
from bench.evaluation.conventions import by_conventions
from bench.machine.numerics import read_numerics
from bench.records.case_folder import CaseFolder
from bench.records.counts import load_counts
from bench.records.history import Row, read_history
from bench.records.record import (
    APART,
    EvaluationRecord,
    Profile,
    Record,
    Training,
    read_evaluations,
    read_record,
)
from bench.suite.case import Case
from bench.suite.columns import COLUMNS, CONVENTIONS
from bench.text import listed, plural

PROTOCOL_KEYS = (
    "dataset",
    "classes",
    "void",
    "split",
    "fingerprint",
    "limit",
    "size",
    "method",
    "score_at",
    "checkpoint",
    "miou",
)


OF_A_MACHINE = (
    "epoch_s",
    "images_per_s",
    "tflops",
    "mfu",
    "data_wait_share",
    "peak_memory_mib",
    "latency_p50_ms",
    "latency_p95_ms",
    "inference_images_per_s",
    "inference_tflops",
    "inference_mfu",
)
OF_SCORING = ("device", "precision", "memory_format", "deterministic")  # what scoring shares
NOT_OF_A_VARIANT: Any = {
    "seed": True,
    "label": True,
    "parent": True,
    "dataset": {"root", "suite_folder"},
}


def load(*folders: str | Path) -> pd.DataFrame:
    """Read every record below some folders.

    Returns:
        One row per case and evaluation, one per case without any. Scores are in 0..1, except
        `loss`; `iou/NAME` is the IoU of a class and `floor/NAME` a score of always predicting the
        most frequent class. Records that cannot be read are skipped with a warning that names
        them. The sub-folders `published` and `baselines` of a given folder are skipped silently.

    Raises:
        UserError: if no folder is given, or one does not exist.
    """
    if not folders:
        raise UserError("Give at least one folder, such as results.")
    for folder in folders:
        if Path(folder).is_file():
            raise UserError(f"{folder} is a file; give a folder of results.")
        if not Path(folder).is_dir():
            raise UserError(f"Folder {folder} does not exist.")
    rows = [row for folder in folders for row in _rows(Path(folder))]
    frame = pd.DataFrame(rows, columns=None if rows else ["id"])
    for name in ("evaluation", "split", "protocol", "scores_version"):
        if name not in frame:
            frame[name] = None
    for name in COLUMNS:
        if name not in frame:
            frame[name] = float("nan")
        frame[name] = pd.to_numeric(frame[name])
    return frame


def warn_of_missing(folders: Iterable[Path], frame: pd.DataFrame) -> None:
    """Warn of cases below some folders that have no record, or if there is no record at all."""
    for folder in folders:
        waiting, running = [], []
        for place in folders_with("case.json", folder):
            if (place / "record.json").exists():
                continue
            name, holder = place.name.rpartition("__")[0], CaseFolder(place).holder()
            if holder is None:
                waiting.append(name)
            else:
                running.append(f"{name} on {holder.host}")
        if running:
            num = plural(len(running), "case")
            warnings.warn(f"{num} in {folder} still running: {listed(running)}.", stacklevel=3)
        if waiting:
            num = plural(len(waiting), "case")
            text = f"{num} in {folder} did not finish and left no record: {listed(waiting)}."
            warnings.warn(text, stacklevel=3)
    if frame.empty:
        text = f"There is no record in {listed(map(str, folders))}."
        warnings.warn(text, stacklevel=3)


def load_profiles(folder: Path) -> pd.DataFrame:
    """Read every profile directly below a suite's folder: one row each, columns as in `load`.

    Profiles that cannot be read are skipped with a warning that names them.
    """
    rows = []
    for file in sorted(folder.glob("*/profile*.json")):
        try:
            profile = Profile.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            warnings.warn(f"{file} is not a profile; bench profile makes it again.", stacklevel=2)
            continue
        rows.append(_profile_row(profile, file.parent))
    return pd.DataFrame(rows, columns=None if rows else ["id"])


def _profile_row(profile: Profile, folder: Path) -> dict[str, Any]:
    case, latency, ran = profile.case, profile.latency, read_numerics(profile.numerics)
    achieved = 2 * profile.complexity["gmacs"] * latency.images_per_s / 1e3 if latency else None
    peak = profile.peak_tflops
    return {
        "folder": str(folder),
        "id": profile.id,
        "case": case.name,
        "label": case.label,
        "arch": case.model.arch,
        "machine": machine_of(profile.numerics, profile.environment),
        "precision": profile.numerics["precision"],
        "memory_format": ran.memory_format,
        "compile": ran.compile,
        "num_classes": profile.num_classes,
        **_facts(profile.complexity),
        "latency_p50_ms": latency and latency.p50_ms,
        "latency_p95_ms": latency and latency.p95_ms,
        "inference_images_per_s": latency and latency.images_per_s,
        "inference_tflops": achieved,
        "inference_mfu": achieved / peak if achieved is not None and peak else None,
        "timed_size": "x".join(map(str, latency.size if latency else profile.complexity["size"])),
        "timed_batch": profile.batch_size,
        "untimed": profile.untimed,
        "measured": profile.measured,
    }


def _rows(folder: Path) -> Iterable[dict[str, Any]]:
    for place in folders_with("record.json", folder):
        try:
            record = read_record(place)
        except UserError as error:
            warnings.warn(str(error), stacklevel=3)
            continue
        if record is None:
            continue
        evaluations = read_evaluations(place)
        case = _case_row(record, place)
        if record.status != "ok" or not evaluations:
            yield case
            continue
        for evaluation in evaluations:
            yield case | _evaluation_row(record, evaluation, place)


def folders_with(name: str, folder: Path) -> Iterable[Path]:
    """Yield the folders that contain a file; skip folders inside those, and those in `APART`."""
    for place, below, files in os.walk(folder):
        if Path(place) == folder:
            below[:] = [one for one in below if one not in APART]
        below.sort()
        if name in files:
            below.clear()
            yield Path(place)


def _case_row(record: Record, folder: Path) -> dict[str, Any]:
    case, training, numerics = record.case, record.training, record.numerics
    # Times of cases that shared a machine say nothing about the network.
    timed = training if training is not None and training.num_sharing == 1 else None
    return {
        "suite": folder.parent.name,
        "folder": str(folder),
        "id": record.id,
        "case": case.name,
        "label": case.label,
        "dataset": case.dataset_name,
        "model": case.model_name,
        "arch": case.model.arch,
        "recipe": case.recipe_name,
        "seed": case.seed,
        "variant": _variant(case),
        "status": record.status,
        "reason": record.reason,
        "finished": record.finished,
        "machine": machine_of(numerics, record.environment),
        "numerics": _pooled(numerics, numerics),
        "trained_in": numerics.get("precision"),
        "memory_format": read_numerics(numerics).memory_format,
        "software": _software(record.environment),
        **_facts(record.complexity),
        "epoch_s": timed.epoch_s if timed else None,
        "images_per_s": timed.images_per_s if timed else None,
        **_achieved(record.complexity.get("train_gflops"), timed, numerics.get("world_size") or 1),
        "num_sharing": training.num_sharing if training else None,
        "data_wait_share": timed.data_wait_share if timed else None,
        "asked_micro_batch": case.recipe.micro_batch,
        "micro_batch": numerics.get("micro_batch"),
        "batch_size": case.recipe.batch_size,
        "peak_memory_mib": training.peak_memory_mib if training else None,
        "train_split": case.train_split,
        "num_train": training.num_train if training else None,
        "epochs": training.epochs if training else None,
        "start": case.start,
        **_steadiness(folder),
    }


def _achieved(
    train_gflops: float | None, timed: Training | None, num_devices: int
) -> dict[str, float | None]:
    """Return the operations per second of training, and their share of a matrix product's."""
    if train_gflops is None or timed is None or timed.images_per_s is None:
        return {"tflops": None, "mfu": None}
    tflops = train_gflops * timed.images_per_s / 1e3
    peak = timed.peak_tflops and num_devices * timed.peak_tflops
    return {"tflops": tflops, "mfu": tflops / peak if peak else None}


def _pooled(trained: Mapping[str, Any], scored: Mapping[str, Any]) -> str:
    """Return the numerics that seeds must share; on a GPU, CPU threads change no number."""
    known, other = read_numerics(trained).as_dict(), read_numerics(scored).as_dict()
    on_cpu = known["device"] in ("cpu", None)
    shared = {key: value for key, value in known.items() if key != "threads" or on_cpu}
    is_equal = all(known[key] == other[key] for key in OF_SCORING)
    shared["scored"] = "as trained" if is_equal else " ".join(str(other[k]) for k in OF_SCORING)
    return json.dumps(shared, sort_keys=True)


def _steadiness(folder: Path) -> dict[str, float | None]:
    """Return how steady a machine was: the range of epoch times and of the reference kernel.

    Only whole epochs after the warm-up count. None if a history does not say.
    """
    rows: Sequence[Row] = []
    with suppress(UserError):  # the curves say so
        rows = read_history(CaseFolder(folder).history)
    steps = max((row.get("steps", 0) for row in rows), default=0)
    timed = [row for row in rows if row.get("warm_up") == 0 and row.get("steps") == steps]
    found: dict[str, float | None] = {}
    for name in ("seconds", "reference_s"):
        values = [row[name] for row in timed if row.get(name, 0) > 0]
        found[f"least_{name}"] = min(values, default=None)
        found[f"most_{name}"] = max(values, default=None)
    return found


def machine_of(numerics: Mapping[str, Any], environment: Mapping[str, Any]) -> str | None:
    """Name the hardware that was measured: the GPUs, or the CPU with its number of threads."""
    size = numerics.get("world_size") or 1
    machine = _machine_of_one(numerics, environment)
    if size == 1 or machine is None:
        return machine
    return f"{size} x {machine}" if numerics.get("device") == "cuda" else f"{machine} x {size}"


def _machine_of_one(numerics: Mapping[str, Any], environment: Mapping[str, Any]) -> str | None:
    """Name the hardware that each process of a case used."""
    if numerics.get("device") == "cuda":
        return environment.get("gpu")
    cpu: str | None = environment.get("cpu")
    if numerics.get("device") != "cpu":
        return cpu
    threads = numerics.get("threads")
    return f"{cpu}, {threads} thread{'' if threads == 1 else 's'}"


def _variant(case: Case) -> str:
    """Identify the settings of a case, to separate cases of the same name with other settings."""
    asked = case.model_dump_json(exclude=NOT_OF_A_VARIANT)
    return hashlib.sha256(asked.encode()).hexdigest()[:8]


def _software(environment: Mapping[str, Any]) -> str:
    packages = environment.get("packages", {})
    return f"bench {environment.get('bench')}, PyTorch {packages.get('torch')}"


def _facts(complexity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts that are the same on any machine."""
    return {
        "num_params": complexity.get("num_params"),
        "num_trainable": complexity.get("num_trainable"),
        "num_unreached": complexity.get("num_unreached"),
        "model_mb": _mega(complexity.get("model_bytes")),
        "checkpoint_mb": _mega(complexity.get("checkpoint_bytes")),
        "gmacs": complexity.get("gmacs"),
        "macs_size": "x".join(map(str, complexity.get("size", ()))),
    }


def _mega(num_bytes: float | None) -> float | None:
    return None if num_bytes is None else num_bytes / 1e6


def _evaluation_row(record: Record, evaluation: EvaluationRecord, folder: Path) -> dict[str, Any]:
    conventions: Mapping[str, float | None] | None = evaluation.conventions
    if conventions is None or conventions.keys() != CONVENTIONS.keys():
        counts = load_counts(folder, evaluation.name)
        names, batch_size = tuple(evaluation.class_iou), record.case.recipe.batch_size
        conventions = by_conventions(counts.per_image, names, batch_size) if counts else {}
    protocol = {key: evaluation.protocol.get(key) for key in PROTOCOL_KEYS}
    return {
        "numerics": _pooled(record.numerics, evaluation.numerics),
        "evaluation": evaluation.name,
        "scores_version": evaluation.version,
        "class_names": tuple(evaluation.class_iou),
        "split": str(protocol["split"]).split(" (")[0],
        "protocol": json.dumps(protocol, sort_keys=True),
        "num_images": evaluation.num_images,
        "num_averaged": evaluation.num_averaged,
        "most_frequent": evaluation.most_frequent,
        **evaluation.scores,
        **conventions,
        **{f"iou/{name}": value for name, value in evaluation.class_iou.items()},
        **{f"floor/{name}": value for name, value in evaluation.floor.items()},
    }
