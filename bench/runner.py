"""Running one case: under its lock, from seed to record; the place that records a failure."""

import logging
import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from bench.atomic import write_atomically, write_json, write_text
from bench.case import Case
from bench.checkpoint import recorded_numerics
from bench.data.choose_loading import choose_loading
from bench.data.class_counts import class_counts
from bench.data.decoding import keep_decoded
from bench.data.images import TrainImages, limited
from bench.data.loading import Loading
from bench.data.transforms import BACKEND
from bench.device import (
    Numerics,
    Refused,
    choose_numerics,
    describe_device,
    pick_device,
    pick_precision,
    seed_everything,
    set_precision,
)
from bench.environment import environment
from bench.errors import UserError
from bench.heartbeat import Heartbeat, Interrupted
from bench.losses import build_loss, numbered
from bench.model_spec import Normalize
from bench.models import Segmenter, build_model
from bench.networks import first_line
from bench.profiling import complexity
from bench.recompute import recompute_activations
from bench.record import CaseFolder, Held, Record, clear, now, read_record
from bench.scoring import Scorer, open_case_dataset, unscored
from bench.task import Options, Outcome, State, Status, Task
from bench.training import train_case
from bench.weights import load_model, load_part, read_weights, write_weights

log = logging.getLogger("bench.case")
Ending = tuple[Status, str | None]


def look_up(task: Task) -> tuple[State, str | None]:
    """Say how far a case is, and why.

    Raises:
        UserError: where its record cannot be read.
    """
    record = read_record(task.folder)
    if record is None or record.status == "blocked":
        return ("resume" if CaseFolder(task.folder).checkpoint.exists() else "to do"), None
    if record.status == "failed":
        return "failed", record.reason
    changed = [s for s, p in record.fingerprints.items() if task.fingerprints.get(s, p) != p]
    if changed:
        return "stale", f"the data of {', '.join(sorted(changed))} changed since"
    missing = unscored(task.folder, task.evaluations)
    return "done", f"not yet scored: {', '.join(missing)} (bench evaluate)" if missing else None


def run_case(task: Task, options: Options) -> Outcome:
    """Train and score a case and leave its record; a failure is recorded too.

    What another process has finished meanwhile stays as it is.
    """

    def work(folder: CaseFolder) -> Ending:
        state, reason = look_up(task)
        if state == "done":
            return "ok", None
        if state == "failed" and not options.retry_failed:
            return "failed", f"{reason} (earlier; --retry-failed)"
        if state == "stale":
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

    def work(folder: CaseFolder) -> Ending:
        record = read_record(task.folder)
        if record is None or record.status != "ok":
            return "failed", "not trained; bench run trains it"
        missing = unscored(task.folder, task.evaluations)
        if not missing:
            return "ok", None
        if not folder.weights.exists():
            return "failed", f"no weights were kept ({folder.weights})"
        device = _use_device(options)
        precision = pick_precision(task.case.recipe.precision, device)
        set_precision(precision)
        numerics = replace(
            Numerics(**record.numerics),
            device=device.type,
            precision=precision,
            threads=torch.get_num_threads(),
        )
        scorer = open_scorer(task, options, device, numerics)
        network = task.case.model.model_copy(update=_as_recorded(record))
        model, _ = build_model(network, scorer.labels.num_classes)
        load_model(model.net, read_weights(folder.weights), str(folder.weights))
        model.to(device)
        heartbeat = Heartbeat(folder, options.should_stop)
        for name in missing:
            scorer.score(model, name, task.evaluations[name], folder, heartbeat)
        return "ok", None

    return _under_lock(task, options, work)


def _as_recorded(record: Record) -> dict[str, Any]:
    """Return what changes in a model whose weights are kept: mean and std stay."""
    mean, std = record.model["mean"], record.model["std"]
    return {"weights": None, "normalize": "none" if mean is None else Normalize(mean=mean, std=std)}


def _under_lock(task: Task, options: Options, work: Callable[[CaseFolder], Ending]) -> Outcome:
    """Do something with a case that no other process may touch meanwhile."""
    start = time.perf_counter()
    folder = CaseFolder(task.folder)
    try:
        with folder.hold(task.case.name), _logging_to(folder.log):
            if options.should_stop():
                raise Interrupted("before it began")
            status, reason = work(folder)
    except Held as holder:
        return Outcome(task.case, "held", f"by {holder}")
    except Interrupted as stop:
        return Outcome(task.case, "interrupted", str(stop))
    except UserError as error:
        return Outcome(task.case, "failed", str(error))
    return Outcome(task.case, status, reason, time.perf_counter() - start)


def _train_and_score(task: Task, options: Options, folder: CaseFolder) -> Ending:
    started = now()
    threads = torch.get_num_threads()
    write_json(folder.case, task.case.model_dump(mode="json"))
    try:
        record = _run(task, options, folder, started)
    except (Interrupted, Refused):
        raise
    except Exception as error:  # the one place: whatever a case does, its failure is a record
        log.error("failed\n%s", traceback.format_exc())
        reason = str(error)
        if not isinstance(error, UserError):
            reason = f"{type(error).__name__}: {first_line(error)} (traceback in {folder.log.name})"
        _write_ending(task, folder, started, "failed", reason)
        return "failed", reason
    finally:
        torch.set_num_threads(threads)
    write_text(folder.record, record.model_dump_json(indent=1) + "\n")
    if task.keep != "all":
        folder.checkpoint.unlink(missing_ok=True)
    return "ok", None


def _write_ending(
    task: Task, folder: CaseFolder, started: str, status: Literal["failed", "blocked"], reason: str
) -> None:
    """Record that a case did not go well."""
    record = Record(
        id=task.case.id,
        case=task.case,
        status=status,
        reason=reason,
        started=started,
        finished=now(),
        environment=dict(environment()),
    )
    write_text(folder.record, record.model_dump_json(indent=1) + "\n")


def _parent_status(task: Task) -> str | None:
    """Return the status of the case that this one starts from; None while it has none."""
    if task.case.parent is None:
        return "ok"
    record = read_record(task.folder.parent / task.case.parent.folder)
    return None if record is None else record.status


def _run(task: Task, options: Options, folder: CaseFolder, started: str) -> Record:
    """Take a case from its seed to its record."""
    case = task.case
    machine = dict(environment())
    device = _use_device(options)
    begun = recorded_numerics(folder.checkpoint, case.id)
    numerics = choose_numerics(case.recipe, device, BACKEND, begun)
    set_precision(numerics.precision)
    seed_everything(case.seed)
    scorer = open_scorer(task, options, device, numerics)
    heartbeat = Heartbeat(folder, options.should_stop)
    model, model_facts = _build(case, folder, scorer)
    images = _training_images(scorer, heartbeat)
    scorer = replace(scorer, loading=_loading(images, scorer, options))
    log.info("images: %s, %.1f/s", scorer.loading.description, scorer.loading.rate)
    trained = train_case(model, images, scorer, folder, task.select, heartbeat)
    for name, evaluation in task.evaluations.items():
        scorer.score(model, name, evaluation, folder, heartbeat)
    scorer.draw(model, next(iter(task.evaluations.values())), folder)
    if task.keep != "none":
        state = model.net.state_dict()
        write_atomically(folder.weights, lambda beside: write_weights(state, beside))
    facts = complexity(
        case.model,
        scorer.labels.num_classes,
        _input_size(images),
        model.geometry,
        case.recipe.micro_batch,
    )
    splits = {case.train_split, *(e.split for e in task.evaluations.values())}
    return Record(
        id=case.id,
        case=case,
        status="ok",
        started=started,
        finished=now(),
        environment=machine | describe_device(device),
        numerics=numerics.as_dict(),
        model=model_facts,
        complexity=asdict(facts) | {"checkpoint_bytes": trained.checkpoint_bytes},
        fingerprints={split: scorer.dataset.fingerprint(split) for split in sorted(splits)},
        loading=scorer.loading.as_dict() | {"cache": images.kept.where if images.kept else "none"},
        training=trained.training,
    )


def _use_device(options: Options) -> torch.device:
    device = pick_device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _build(case: Case, folder: CaseFolder, scorer: Scorer) -> tuple[Segmenter, dict[str, Any]]:
    model, facts = build_model(case.model, scorer.labels.num_classes)
    if case.parent is not None:
        file = CaseFolder(folder.path.parent / case.parent.folder).weights
        state, parent = read_weights(file), case.parent
        unused, unfilled = load_part(model.net, state, parent.part, parent.name)
        facts |= {"init_from": parent.name, "init_from_unused": unused}
        facts |= {"init_from_unfilled": unfilled}
    log.info("model %s", facts)
    if case.recipe.memory == "checkpoint":
        recompute_activations(model.net)
    return model.to(scorer.device), facts


def _training_images(scorer: Scorer, beat: Callable[[], None]) -> TrainImages:
    """Return the training images, decoded once where they are read more than once."""
    case, recipe = scorer.case, scorer.case.recipe
    images = TrainImages(scorer.dataset, scorer.train_samples, recipe, case.seed)
    num_read = recipe.steps * recipe.batch_size if recipe.steps else 0
    epochs = recipe.epochs or math.ceil(num_read / len(images))
    if recipe.epochs != 0:
        keep_decoded(images, scorer.cache, case.train_split, epochs, beat)
    return images


def _loading(images: TrainImages, scorer: Scorer, options: Options) -> Loading:
    """Return how batches are fetched: as asked, else as measured."""
    recipe = scorer.case.recipe
    if options.loader_workers is not None:
        on_gpu = scorer.device.type == "cuda"
        return Loading(options.loader_workers, pin_memory=on_gpu)
    return choose_loading(images, recipe.batch_size, scorer.device)


def _input_size(images: TrainImages) -> tuple[int, int]:
    """Return the (H, W) that training feeds the network."""
    item = images[0, 0]
    if isinstance(item, UserError):
        raise item
    return item[0].shape[1], item[0].shape[2]


def open_scorer(task: Task, options: Options, device: torch.device, numerics: Numerics) -> Scorer:
    """Open a case's dataset and what scores it."""
    case = task.case
    dataset = open_case_dataset(case, options.roots)
    labels = dataset.labels(dataset.options)
    samples = limited(dataset.samples(case.train_split), case.limit)
    count = partial(class_counts, dataset, case.train_split, samples)
    return Scorer(
        case=case,
        dataset=dataset,
        labels=labels,
        train_samples=samples,
        loss_fn=build_loss(
            numbered(case.recipe.loss, count), labels.num_classes, device, case.recipe.aux_weight
        ),
        device=device,
        numerics=numerics,
        cache=options.cache or task.cache,
        loading=Loading(options.loader_workers or 0, pin_memory=device.type == "cuda"),
    )


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Send what a case logs, and warnings, to its own file."""
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
