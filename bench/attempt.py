"""One case from its seed, or its checkpoint, to its record."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from bench.atomic import write_atomically
from bench.case import Case
from bench.case_folder import CaseFolder, clear
from bench.checkpoint import Beginning, read_checkpoint
from bench.clock import Clock
from bench.data.choose_loading import choose_loading
from bench.data.class_counts import class_counts
from bench.data.decoding import keep_decoded
from bench.data.images import TrainImages, limited
from bench.data.loading import Loading
from bench.data.transforms import BACKEND
from bench.device import (
    Numerics,
    algorithms,
    choose_numerics,
    describe_device,
    is_out_of_memory,
    pick_device,
    release_memory,
    seed_everything,
    set_precision,
)
from bench.environment import environment
from bench.errors import UserError
from bench.heartbeat import Heartbeat, Interrupted
from bench.losses import build_loss, numbered
from bench.models import Segmenter, build_model
from bench.profiling import complexity
from bench.recompute import recompute_activations
from bench.record import Record, now
from bench.scoring import Scorer, open_case_dataset
from bench.task import Options, Task
from bench.training import Trained, train_case
from bench.weights import load_part, read_weights, write_weights

log = logging.getLogger("bench.case")


@dataclass(frozen=True)
class Attempt:
    """A case whose training has come to its end."""

    scorer: Scorer
    model: Segmenter
    facts: dict[str, Any]
    images: TrainImages
    heartbeat: Heartbeat
    trained: Trained


def run_to_record(task: Task, options: Options, folder: CaseFolder, started: str) -> Record:
    """Take a case from its seed, or its checkpoint, to its record."""
    case, machine = task.case, dict(environment())
    device = use_device(options)
    with algorithms(case.recipe.deterministic):
        done = _train_in_memory(task, options, folder, device)
        scorer, model = done.scorer, done.model
        for name, evaluation in task.evaluations.items():
            scorer.score(model, name, evaluation, folder, done.heartbeat)
        scorer.draw(model, next(iter(task.evaluations.values())), folder)
    if task.keep != "none":
        state = model.net.state_dict()
        write_atomically(folder.weights, lambda beside: write_weights(state, beside))
    complexity_facts = complexity(
        case.model,
        scorer.labels.num_classes,
        _input_size(done.images),
        model.geometry,
        scorer.numerics.micro_batch,
        case.recipe.freeze_encoder,
    )
    splits = {case.train_split, *(e.split for e in task.evaluations.values())}
    kept = done.images.kept
    return Record(
        id=case.id,
        case=case,
        status="ok",
        started=started,
        finished=now(),
        environment=machine | describe_device(device),
        numerics=scorer.numerics.as_dict(),
        model=done.facts,
        complexity=asdict(complexity_facts) | {"checkpoint_bytes": done.trained.checkpoint_bytes},
        fingerprints={split: scorer.dataset.fingerprint(split) for split in sorted(splits)},
        loading=scorer.loading.as_dict() | {"cache": kept.where if kept else "none"},
        training=done.trained.training,
        notes=done.trained.notes,
    )


def _train_in_memory(
    task: Task, options: Options, folder: CaseFolder, device: torch.device
) -> Attempt:
    """Train a case, anew with ever smaller micro-batches where memory does not do."""
    case, recipe = task.case, task.case.recipe
    clock = Clock()
    with clock.timing("start"):
        data = open_case_dataset(case, options.roots).fingerprint(case.train_split)
        saved, broken = read_checkpoint(folder, case.id, data)
    notes = [broken] if broken else []
    if broken:
        log.warning(broken)
    micro_batch = saved.numerics.micro_batch if saved else recipe.micro_batch
    while True:
        begin = Beginning(saved, clock, tuple(notes), options.num_sharing)
        try:
            return _attempt(task, options, folder, device, micro_batch, begin)
        except Interrupted as stop:
            for note in notes:
                stop.add_note(note)
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or recipe.on_oom == "fail" or micro_batch == 1:
                for note in notes:
                    error.add_note(note)
                raise
        smaller = max(n for n in range(1, micro_batch // 2 + 1) if recipe.batch_size % n == 0)
        notes.append(
            f"out of memory with {micro_batch} images at once; began anew with {smaller} of the "
            f"{recipe.batch_size} of a batch"
        )
        log.warning(notes[-1])
        clear(folder)
        saved, micro_batch, clock = None, smaller, Clock()
        release_memory(device)


def _attempt(
    task: Task,
    options: Options,
    folder: CaseFolder,
    device: torch.device,
    micro_batch: int,
    begin: Beginning,
) -> Attempt:
    """Build and train a case.

    Raises:
        RuntimeError, MemoryError: where memory does not do for so many images at once.
    """
    case, saved = task.case, begin.saved
    with begin.clock.timing("start"):
        begun = saved.numerics if saved else None
        numerics = choose_numerics(case.recipe, device, BACKEND, micro_batch, begun)
        set_precision(numerics.precision)
        seed_everything(case.seed)
        scorer = open_scorer(task, options, device, numerics)
        heartbeat = Heartbeat(folder, options.should_stop)
        model, facts = _build(case, folder, scorer)
        images = _training_images(scorer, heartbeat)
        scorer = replace(scorer, loading=_loading(images, scorer, options))
        log.info("images: %s, %.1f/s", scorer.loading.description, scorer.loading.rate)
    trained = train_case(model, images, scorer, folder, task.select, heartbeat, begin)
    return Attempt(scorer, model, facts, images, heartbeat, trained)


def use_device(options: Options) -> torch.device:
    """Return the device that was asked for, made the current one."""
    device = pick_device(options.device)
    if device.type == "cuda" and device.index is not None:
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
    if case.recipe.freeze_encoder:
        model.freeze_encoder()
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
