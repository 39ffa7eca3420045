"""Running one case under its lock; this is where a failure is recorded."""

import logging
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from bench.errors import UserError
from bench.machine.device import algorithms, set_precision
from bench.machine.environment import environment
from bench.machine.files import CannotWrite, write_json, write_text
from bench.machine.memory import gpu_peak_memory_mib, is_out_of_memory, process_memory_mib
from bench.machine.numerics import read_numerics
from bench.machine.sharing import listed
from bench.machine.world import Lost
from bench.models.networks import mixes_devices, said
from bench.models.segmenter import build_model
from bench.models.weight_files import read_weights
from bench.models.weights import load_model
from bench.records.case_folder import CaseFolder, Held, clear, drop_checkpoints
from bench.records.heartbeat import Heartbeat, Interrupted
from bench.records.record import Failure, Record, now, read_record
from bench.runner.attempt import open_evaluator, run_to_record, use_device
from bench.runner.elsewhere import decided
from bench.runner.evaluate import score
from bench.runner.numerics import Refused, scoring_numerics
from bench.runner.plan import look_up, unscored
from bench.runner.task import Ending, Options, Outcome, Task
from bench.suite.model import Normalize
from bench.text import first_line

log = logging.getLogger("bench.case")


def run_case(task: Task, options: Options) -> Outcome:
    """Train and score a case and leave its record; a failure is recorded too.

    A case that another process has finished in the meantime stays as it is.
    """

    def work(folder: CaseFolder) -> Ending:
        ending = decided(task, options)
        if ending is not None:
            return ending
        if look_up(task)[0] == "stale":
            clear(folder)
        parent = _parent_status(task)
        if parent == "ok":
            return _train_and_score(task, options, folder)
        if parent is None:
            return "held", f"{task.case.parent and task.case.parent.name} has not finished"
        reason = f"{task.case.parent and task.case.parent.name} {parent}"
        _write_ending(task, folder, now(), "blocked", reason)
        return "blocked", reason

    return _under_lock(task, options, work)


def evaluate_case(task: Task, options: Options) -> Outcome:
    """Score the kept weights of a finished case by the evaluations it lacks."""
    if not task.folder.is_dir():
        return Outcome(task.case, "failed", CaseFolder(task.folder).unfinished)

    def work(folder: CaseFolder) -> Ending:
        record = read_record(task.folder)
        if record is None:
            return "failed", folder.unfinished
        if record.status != "ok":
            return "failed", f"its training {record.status}: {record.reason}"
        missing = unscored(task.folder, task.evaluations)
        if not missing:
            return "ok", None
        if not folder.weights.exists():
            return "failed", f"no weights were kept ({folder.weights})"
        with algorithms(task.case.recipe.deterministic):
            _score_kept_weights(task, options, folder, record, missing)
        return "ok", None

    return _under_lock(task, options, work, patiently=True)


def _score_kept_weights(
    task: Task, options: Options, folder: CaseFolder, record: Record, names: Sequence[str]
) -> None:
    device = use_device(options)
    numerics = scoring_numerics(read_numerics(record.numerics), device)
    heartbeat = Heartbeat(folder, options.should_stop)
    evaluator = open_evaluator(task, options, device, numerics, heartbeat)
    network = task.case.model.model_copy(update=_as_recorded(record))
    model, _ = build_model(network, evaluator.setup.num_classes)
    load_model(model.net, read_weights(folder.weights), str(folder.weights))
    model.to(device).lay_out(numerics.memory_format)
    set_precision(numerics.precision, search=numerics.cudnn_benchmark)
    for name in names:
        score(model, task.case, name, task.evaluations[name], evaluator, folder)


def _as_recorded(record: Record) -> dict[str, Any]:
    """Return the changes that rebuild a recorded model: no weights, its recorded mean and std."""
    mean, std = record.model["mean"], record.model["std"]
    return {"weights": None, "normalize": "none" if mean is None else Normalize(mean=mean, std=std)}


def _under_lock(
    task: Task, options: Options, work: Callable[[CaseFolder], Ending], *, patiently: bool = False
) -> Outcome:
    """Run `work` on a case while no other process can."""
    start = time.perf_counter()
    folder = CaseFolder(task.folder)
    try:
        watch = folder.watched() if patiently else None
        with folder.hold(watch) as held, listed(), logging_to(folder.log):
            if options.should_stop():
                raise Interrupted("before it started")
            status, reason = work(held)
            record = read_record(task.folder)
    except Held as holder:
        return Outcome(task.case, "held", str(holder))
    except Interrupted as stop:
        notes = tuple(getattr(stop, "__notes__", ()))
        return Outcome(task.case, "interrupted", str(stop), notes=notes)
    except CannotWrite as error:
        return Outcome(task.case, "stopped", str(error))
    except UserError as error:
        return Outcome(task.case, "failed", str(error))
    notes = record.notes if record is not None else ()
    return Outcome(task.case, status, reason, time.perf_counter() - start, notes)


def _train_and_score(task: Task, options: Options, folder: CaseFolder) -> Ending:
    started = now()
    threads = torch.get_num_threads()
    write_json(folder.case, task.case.model_dump(mode="json"))
    options.world.told(True)  # the other processes begin
    try:
        record = run_to_record(task, options, folder, started)
    except (Interrupted, Refused, CannotWrite, Held, Lost):
        raise
    except (Exception, SystemExit) as error:  # any failure becomes a record
        log.error("failed\n%s", traceback.format_exc())
        reason = reason_of(error, folder, task.case.recipe.on_oom)
        notes = tuple(getattr(error, "__notes__", ()))
        _write_ending(task, folder, started, "failed", reason, _failure(folder), notes)
        return "failed", reason
    finally:
        torch.set_num_threads(threads)
    folder.require()
    write_text(folder.record, record.model_dump_json(indent=1) + "\n")
    drop_checkpoints(folder, keep_last=task.keep == "all")
    return "ok", None


def reason_of(error: Exception | SystemExit, folder: CaseFolder, on_oom: str) -> str:
    """Say why a case failed."""
    if isinstance(error, UserError):
        return str(error)
    if mixes_devices(error):
        return f"The network fails: {said(error)}"
    more = f"traceback in {folder.log.name}"
    if is_out_of_memory(error) and on_oom == "fail":
        more += "; on_oom: accumulate uses smaller micro-batches"
    return f"{type(error).__name__}: {first_line(error)} ({more})"


def _failure(folder: CaseFolder) -> Failure:
    """Return what this process knows about its failure."""
    return Failure(
        peak_memory_mib=process_memory_mib(),
        gpu_peak_memory_mib=gpu_peak_memory_mib(),
        log_tail=folder.log_tail(),
    )


def record_death(task: Task, started: str, reason: str, failure: Failure) -> Outcome:
    """Record that the process of a case ended without an outcome; its checkpoint stays."""
    return _record(task, started, "failed", reason, failure)


def record_blocked(task: Task, reason: str) -> Outcome:
    """Record that a case cannot start because of the case whose weights it needs."""
    return _record(task, now(), "blocked", reason)


def _record(
    task: Task,
    started: str,
    status: Literal["failed", "blocked"],
    reason: str,
    failure: Failure | None = None,
) -> Outcome:
    """Record the ending of a case that no process runs, unless it is done."""
    folder = CaseFolder(task.folder)
    try:
        with folder.hold(folder.watched()) as held:  # its host may be another one
            if look_up(task)[0] == "done":  # it died after its record was written
                return Outcome(task.case, "ok")
            _write_ending(task, held, started, status, reason, failure)
    except Held as holder:
        return Outcome(task.case, "held", str(holder))
    except CannotWrite as error:
        return Outcome(task.case, "stopped", f"{reason}. {error}")
    except UserError as error:
        return Outcome(task.case, "failed", f"{reason}. {error}")
    return Outcome(task.case, status, reason)


def _write_ending(
    task: Task,
    folder: CaseFolder,
    started: str,
    status: Literal["failed", "blocked"],
    reason: str,
    failure: Failure | None = None,
    notes: tuple[str, ...] = (),
) -> None:
    """Record that a case failed or is blocked."""
    record = Record(
        id=task.case.id,
        case=task.case,
        status=status,
        reason=reason,
        started=started,
        finished=now(),
        environment=dict(environment()),
        fingerprints=dict(task.fingerprints),
        failure=failure,
        notes=notes,
    )
    folder.require()
    write_text(folder.record, record.model_dump_json(indent=1) + "\n")


def _parent_status(task: Task) -> str | None:
    """Return the status of the case that this one starts from; None if it has not finished."""
    if task.case.parent is None:
        return "ok"
    record = read_record(task.folder.parent / task.case.parent.folder)
    return None if record is None else record.status


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Write what a case logs, and warnings, to its own file."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = log, logging.getLogger("py.warnings")
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
