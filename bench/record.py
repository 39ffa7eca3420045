"""Records: what a case left on disk, the layout of its folder, the lock."""

import hashlib
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from bench.atomic import CannotWrite, read_json, write_json, write_text
from bench.case import Case
from bench.errors import UserError
from bench.evaluation import Evaluation
from bench.suite import Suite

APART = ("published", "baselines")  # below results/: reported only where they are named
MOST_OF_A_NAME = 80
LOG_TAIL_LINES, LOG_TAIL_BYTES = 40, 1 << 16
Status = Literal["ok", "failed", "blocked"]


class Held(Exception):
    """Another process is running this case."""


class Training(BaseModel):
    """How the training went.

    total_s, first_epoch_s, epoch_s: of training alone, synchronised; data_wait_share is the part
        of it that waited for images.
    start_s: from the beginning of the case to its first step, over all resumptions.
    validation_s: of one scoring between epochs.
    chosen_epoch: whose model is the result.
    num_sharing: cases that shared the machine, this one included.
    """

    epochs: int
    steps: int
    num_train: int
    start_s: float | None = None
    first_epoch_s: float | None = None
    epoch_s: float | None = None
    images_per_s: float | None = None
    data_wait_share: float | None = None
    validation_s: float | None = None
    total_s: float
    resumed: int = 0
    peak_memory_mib: float | None = None
    loss: float | None = None
    chosen_epoch: int | None = None
    stopped_early: bool = False
    num_sharing: int = 1


class Failure(BaseModel):
    """What is known of a case that failed, beside its reason.

    signal: that ended its process.
    peak_memory_mib: of the process, on the machine, not its GPU.
    log_tail: the last lines of its log.
    """

    signal: str | None = None
    exit_code: int | None = None
    peak_memory_mib: float | None = None
    log_tail: tuple[str, ...] = ()


class Record(BaseModel):
    """One case: what was asked, what ran, on what, and what came of it.

    notes: what happened on the way that a reader should know.
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
    """The time that one image of `size` (H, W) takes from uint8 to logits; percentiles in ms."""

    size: tuple[int, int]
    p50_ms: float
    p95_ms: float
    images_per_s: float
    num_runs: int


class Profile(BaseModel):
    """What a case's network costs, without any training."""

    version: int = 1
    id: str
    case: Case
    measured: str
    environment: dict[str, Any]
    numerics: dict[str, Any]
    num_classes: int
    complexity: dict[str, Any]
    latency: Latency


class EvaluationRecord(BaseModel):
    """Scores of one evaluation, with what makes them comparable."""

    version: int = 1
    name: str
    asked: Evaluation
    protocol: dict[str, Any]
    numerics: dict[str, Any]
    num_images: int
    num_averaged: int
    scores: dict[str, float | None]
    conventions: dict[str, float | None] | None = None  # none in records before there were any
    class_iou: dict[str, float | None]
    most_frequent: str
    floor: dict[str, float | None]
    seconds: float


class Resolved(BaseModel):
    """A suite as it was when it last ran, with its cases; reports read it.

    settings: what --set and --limit laid over the file.
    """

    suite: Suite
    settings: tuple[str, ...] = ()
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class CaseFolder:
    """Where a case keeps what it leaves."""

    path: Path

    @property
    def record(self) -> Path:
        """The record; written last."""
        return self.path / "record.json"

    @property
    def profile(self) -> Path:
        """What the network costs; has no part in whether the case is done."""
        return self.path / "profile.json"

    @property
    def case(self) -> Path:
        """What was asked."""
        return self.path / "case.json"

    @property
    def alive(self) -> Path:
        """The heartbeat: pid, host, epoch, time."""
        return self.path / "alive.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the case."""
        return self.path / "lock"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.path / "history.csv"

    @property
    def checkpoint(self) -> Path:
        """What a killed run continues from."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before that, for the case that the last cannot be read."""
        return self.path / "previous.pt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether a killed run can continue."""
        return self.checkpoint.exists() or self.previous.exists()

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "weights.safetensors"

    @property
    def log(self) -> Path:
        """What happened, with tracebacks."""
        return self.path / "log.txt"

    @property
    def pictures(self) -> Path:
        """A few predictions beside their truth."""
        return self.path / "pictures"

    def evaluation(self, name: str) -> Path:
        """The scores of one evaluation; its counts lie beside it as .npz."""
        return self.path / "eval" / f"{name}.json"

    @contextmanager
    def hold(self, name: str = "") -> Iterator[None]:
        """Keep other processes from this case; the lock goes with the process that has it.

        Args:
            name: of the case, for the sign of life.

        Raises:
            Held: naming who has it.
            UserError: where the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.lock, timeout=0)
            lock.acquire()
        except Timeout:
            raise Held(self.holder()) from None
        except OSError as error:
            raise UserError(f"Cannot write to {self.path}: {error.strerror}.") from error
        try:
            for left in self.path.rglob(".*.tmp"):  # by a process that was killed while writing
                left.unlink(missing_ok=True)
            self.beat(case=name)
            yield
        finally:
            self.alive.unlink(missing_ok=True)
            lock.release()

    def lock_id(self) -> int | None:
        """Tell this lock from one that is made anew; None where there is none."""
        try:
            return self.lock.stat().st_ino
        except OSError:
            return None

    def require_lock(self, lock_id: int | None) -> None:
        """Make sure that the lock still lies where another process would look for it.

        Raises:
            CannotWrite: where it does not: the folder was moved or removed.
        """
        if lock_id is None or self.lock_id() != lock_id:
            raise CannotWrite(
                f"{self.path} disappeared while its case ran; what it had is lost, and bench run "
                "begins it again."
            )

    def holder(self) -> str:
        """Say who last gave a sign of life here."""
        beat = read_json(self.alive) or {}
        return f"process {beat.get('pid', '?')} on {beat.get('host', '?')}"

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ()
        return tuple(lines[-LOG_TAIL_LINES:])

    def beat(self, **progress: Any) -> None:
        """Write a sign of life."""
        signs = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
        write_json(self.alive, signs | progress, sync=False)


def read_record(folder: Path) -> Record | None:
    """Read the record of a case's folder; None where there is none.

    Raises:
        UserError: where the file cannot be read or is no record.
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
    """Read every evaluation of a case's folder; one that cannot be read is warned of."""
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
            warnings.warn(f"{file} is no evaluation; bench evaluate makes it again.", stacklevel=2)
    return found


def drop_checkpoints(folder: CaseFolder, keep_last: bool) -> None:
    """Remove what a finished case does not need any more."""
    folder.previous.unlink(missing_ok=True)
    if not keep_last:
        folder.checkpoint.unlink(missing_ok=True)


def clear(folder: CaseFolder) -> None:
    """Empty a case's folder but for its log and lock; only by who holds it."""
    for file in (
        folder.record,
        folder.checkpoint,
        folder.previous,
        folder.weights,
        folder.history,
    ):
        file.unlink(missing_ok=True)
    for part in (folder.path / "eval", folder.pictures):
        shutil.rmtree(part, ignore_errors=True)


def results_folder(out: Path, suite: Suite, settings: Iterable[str]) -> Path:
    """Return where a suite's cases go; those changed by --set or --limit lie apart."""
    changes = ",".join(re.sub(r"[^A-Za-z0-9._+,-]+", "-", setting) for setting in sorted(settings))
    if len(changes) > MOST_OF_A_NAME:
        digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
        changes = f"{changes[:MOST_OF_A_NAME]}-{digest}"
    return out / (f"{suite.name}@{changes}" if changes else suite.name)


def write_resolved(folder: Path, resolved: Resolved) -> None:
    """Save a suite beside its results."""
    write_text(folder / "suite.json", resolved.model_dump_json(indent=1) + "\n")


def read_resolved(folder: Path) -> Resolved | None:
    """Read the suite saved beside its results; None where there is none.

    Raises:
        UserError: where the file is no suite.
    """
    file = folder / "suite.json"
    try:
        return Resolved.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise UserError(f"{file} is no saved suite: {str(error).splitlines()[0]}") from error


def now() -> str:
    """Return the time as ISO 8601 with the offset from UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
