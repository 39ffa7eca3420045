"""Records: what a case leaves on disk."""

import os
import time
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from bench.errors import UserError
from bench.machine.files import write_text
from bench.records.case_folder import CaseFolder
from bench.suite.case import Case
from bench.suite.evaluation import Evaluation
from bench.suite.suite import Suite

APART = ("published", "baselines")  # below results/: reported only if they are named
Status = Literal["ok", "failed", "blocked"]


class Training(BaseModel):
    """How the training went.

    total_s, first_epoch_s, epoch_s: of training only, synchronised; data_wait_share is the share
        of it spent waiting for images.
    start_s: from the start of the case to its first step, summed over all resumes.
    compile_s: of torch.compile, summed over all resumes; in no other time.
    validation_s: of scoring once between epochs.
    peak_tflops: what a large matrix product reaches here, in 10^12 operations per second.
    chosen_epoch: the epoch whose model is the result.
    num_sharing: cases that shared the machine, this one included.
    """

    epochs: int
    steps: int
    num_train: int
    start_s: float | None = None
    compile_s: float | None = None
    first_epoch_s: float | None = None
    epoch_s: float | None = None
    images_per_s: float | None = None
    data_wait_share: float | None = None
    validation_s: float | None = None
    total_s: float
    resumed: int = 0
    peak_memory_mib: float | None = None
    peak_tflops: float | None = None
    loss: float | None = None
    chosen_epoch: int | None = None
    stopped_early: bool = False
    num_sharing: int = 1


class Failure(BaseModel):
    """What is known about a failed case, in addition to its reason.

    signal: the signal that ended its process.
    peak_memory_mib: of the process in main memory.
    gpu_peak_memory_mib: of tensors on its GPU, in the epoch that failed; None without a GPU.
    log_tail: the last lines of its log.
    """

    signal: str | None = None
    exit_code: int | None = None
    peak_memory_mib: float | None = None
    gpu_peak_memory_mib: float | None = None
    log_tail: tuple[str, ...] = ()


class Record(BaseModel):
    """One case: what was asked, what ran, on which machine, and the outcome.

    notes: what happened during the run that a reader should know.
    """

    version: int = 1
    id: str
    case: Case
    status: Status
    reason: str | None = None
    started: str
    finished: str
    environment: dict[str, Any]
    numerics: dict[str, Any] = {}
    model: dict[str, Any] = {}
    complexity: dict[str, Any] = {}
    fingerprints: dict[str, str] = {}
    loading: dict[str, Any] = {}
    training: Training | None = None
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


class Latency(BaseModel):
    """The time that a batch of `size` (H, W) takes from uint8 to logits; percentiles in ms."""

    size: tuple[int, int]
    p50_ms: float
    p95_ms: float
    images_per_s: float
    num_runs: int


class Profile(BaseModel):
    """What a case's network costs, without any training.

    batch_size: images in a timed pass.
    peak_tflops: what a large matrix product reaches here, in 10^12 operations per second.
    untimed: why there is no latency.
    """

    version: int = 1
    id: str
    case: Case
    measured: str
    environment: dict[str, Any]
    numerics: dict[str, Any]
    num_classes: int
    complexity: dict[str, Any]
    latency: Latency | None = None
    batch_size: int = 1
    peak_tflops: float | None = None
    untimed: str | None = None


class EvaluationRecord(BaseModel):
    """Scores of one evaluation, with what makes them comparable.

    asked: the evaluation as the suite defines it.
    protocol: what must be equal for scores to be comparable.
    batch_size: images per forward pass; None in old records.
    num_averaged: how many classes the mean IoU averages over.
    scores, conventions, class_iou, floor: in 0..1, except the loss in `scores`; None if undefined.
    most_frequent, floor: the majority class, and the scores of always predicting it.
    seconds: of the whole pass.
    """

    version: int = 1
    name: str
    asked: Evaluation
    protocol: dict[str, Any]
    numerics: dict[str, Any]
    num_images: int
    batch_size: int | None = None
    num_averaged: int
    scores: dict[str, float | None]
    conventions: dict[str, float | None] | None = None  # None in old records
    class_iou: dict[str, float | None]
    most_frequent: str
    floor: dict[str, float | None]
    seconds: float


class Resolved(BaseModel):
    """A suite as it was when it last ran, with its cases; reports read it.

    settings: given with --set and --limit.
    ids: of the cases, so that reports need not import a user's own dataset; () in old files.
    """

    suite: Suite
    settings: tuple[str, ...] = ()
    cases: tuple[Case, ...]
    ids: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _cases_have_ids(self) -> "Resolved":
        for case, known in zip(self.cases, self.ids, strict=False):
            case.__dict__["id"] = known  # as if it had been computed
        return self


def read_record(folder: Path) -> Record | None:
    """Read the record in a case's folder; None if there is none.

    Raises:
        UserError: if the file cannot be read or is not a record.
    """
    file = CaseFolder(folder).record
    try:
        return Record.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    except ValidationError as error:
        raise UserError(f"{file} is not a record; remove it to train this case again.") from error


def read_evaluations(folder: Path) -> list[EvaluationRecord]:
    """Read every evaluation in a case's folder; warn if one cannot be read."""
    found = []
    place = os.path.join(folder, "eval")
    try:
        names = sorted(os.listdir(place))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for file in (os.path.join(place, name) for name in names if name.endswith(".json")):
        try:
            with open(file, "rb") as stream:
                found.append(EvaluationRecord.model_validate_json(stream.read()))
        except (OSError, ValidationError):
            warnings.warn(
                f"{file} is not an evaluation; bench evaluate makes it again.", stacklevel=2
            )
    return found


def write_resolved(folder: Path, resolved: Resolved) -> None:
    """Save a suite with its results."""
    known = resolved.model_copy(update={"ids": tuple(case.id for case in resolved.cases)})
    write_text(folder / "suite.json", known.model_dump_json(indent=1) + "\n")


def read_resolved(folder: Path) -> Resolved | None:
    """Read the suite saved with its results; None if there is none.

    Raises:
        UserError: if the file is not a saved suite, or an old one whose datasets cannot be
            imported here.
    """
    file = folder / "suite.json"
    try:
        resolved = Resolved.model_validate_json(file.read_bytes())
        for case in resolved.cases:
            case.id  # noqa: B018 - computed once, here
        return resolved
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (OSError, ValidationError) as error:
        raise UserError(f"{file} is not a saved suite: {str(error).splitlines()[0]}") from error


def now() -> str:
    """Return the time as ISO 8601 with the offset from UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
