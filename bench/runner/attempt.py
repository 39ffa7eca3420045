"""One case from its seed, or its checkpoint, to its record."""

import logging
import math
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from bench.datasets.base import Dataset, Sample
from bench.datasets.class_weights import class_counts
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.setup import Setup
from bench.loading.autotune import choose_loading
from bench.loading.images import TrainImages, limited
from bench.loading.loading import Loading
from bench.loading.predecode import keep_decoded
from bench.loading.transforms import BACKEND
from bench.machine.clock import Clock
from bench.machine.device import (
    algorithms,
    as_it_runs,
    describe_device,
    pick_device,
    set_precision,
)
from bench.machine.environment import environment
from bench.machine.files import write_atomically
from bench.machine.memory import is_out_of_memory, keep_freed_memory, release_memory
from bench.machine.numerics import Numerics
from bench.machine.random_state import seed_everything
from bench.machine.world import World
from bench.models.activation_checkpointing import recompute_activations
from bench.models.batch_norm import synchronise
from bench.models.complexity import complexity
from bench.models.memory_format import takes_channels_last
from bench.models.segmenter import Segmenter, build_model
from bench.models.weight_files import read_weights, write_weights
from bench.models.weights import load_part
from bench.records.case_folder import CaseFolder, clear
from bench.records.heartbeat import Heartbeat, Interrupted
from bench.records.record import Record, now
from bench.runner.evaluate import draw, score
from bench.runner.numerics import choose_numerics
from bench.runner.task import Options, Task
from bench.suite.case import Case, open_case_dataset
from bench.suite.recipe import Recipe
from bench.training.checkpoint import Beginning, Saved, read_checkpoint
from bench.training.distributed import Follower, SharedStop, start_alike
from bench.training.losses import build_loss, with_counted_weights
from bench.training.trainer import Job, Trained, train, trained_on

log = logging.getLogger("bench.case")


@dataclass(frozen=True)
class Attempt:
    """A case whose training has ended; facts: what was done to build its model."""

    job: Job
    facts: dict[str, Any]
    trained: Trained


def run_to_record(task: Task, options: Options, folder: CaseFolder, started: str) -> Record:
    """Train and score a case, from its seed or its checkpoint, and return its record."""
    case, machine = task.case, dict(environment())
    device = use_device(options)
    with algorithms(case.recipe.deterministic):
        done = _train_and_score(task, options, folder, device)
        model, evaluator = done.job.model, done.job.evaluator
        draw(model, next(iter(task.evaluations.values())), evaluator, folder)
    folder.require()
    if task.keep != "none":
        state = model.net.state_dict()
        write_atomically(folder.weights, lambda beside: write_weights(state, beside))
    numerics, dataset = as_it_runs(evaluator.setup.numerics), evaluator.dataset
    counted = complexity(
        case.model,
        evaluator.setup.num_classes,
        _input_size(done.job.images),
        model.geometry,
        numerics.micro_batch,
        case.recipe.freeze_encoder,
    )
    splits = {case.train_split, *(e.split for e in task.evaluations.values())}
    kept = done.job.images.kept
    return Record(
        id=case.id,
        case=case,
        status="ok",
        started=started,
        finished=now(),
        environment=machine | describe_device(device),
        numerics=numerics.as_dict(),
        model=done.facts,
        complexity=asdict(counted) | {"checkpoint_bytes": done.trained.checkpoint_bytes},
        fingerprints={split: dataset.fingerprint(split) for split in sorted(splits)},
        loading=evaluator.loading.as_dict() | {"cache": kept.where if kept else "none"},
        training=done.trained.training,
        notes=(*done.trained.notes, *_changes(evaluator.setup.numerics, numerics)),
    )


def take_part(task: Task, options: Options, folder: CaseFolder) -> None:
    """Train and score a case as a process that is not its first, which leaves nothing on disk."""
    device = use_device(options)
    with algorithms(task.case.recipe.deterministic):
        _train_and_score(task, options, folder, device)


def _train_and_score(
    task: Task, options: Options, folder: CaseFolder, device: torch.device
) -> Attempt:
    done = _train(task, options, folder, device)
    for name, evaluation in task.evaluations.items():
        score(done.job.model, task.case, name, evaluation, done.job.evaluator, folder)
    return done


def _changes(asked: Numerics, ran: Numerics) -> list[str]:
    """Say if a network's code changed torch's settings while it trained."""
    if asked == ran:
        return []
    return [
        f"the code of the network changed torch's settings: precision {ran.precision} instead of "
        f"{asked.precision}, cuDNN's search {'on' if ran.cudnn_benchmark else 'off'}"
    ]


def _train(task: Task, options: Options, folder: CaseFolder, device: torch.device) -> Attempt:
    """Train a case; on out-of-memory, restart with smaller micro-batches."""
    case, recipe = task.case, task.case.recipe
    clock = Clock()
    with clock.timing("start"):
        data = trained_on(open_case_dataset(case, options.roots), case, task.select)
        # The first process removes a broken checkpoint before the others look.
        saved, broken = options.world.first(lambda: read_checkpoint(folder, case.id, data))
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
            restarts = recipe.on_oom == "accumulate" and options.world.is_alone
            if not is_out_of_memory(error) or not restarts or micro_batch == 1:
                if recipe.on_oom == "accumulate" and not options.world.is_alone:
                    notes.append("on several GPUs, on_oom: accumulate does nothing; set accumulate")
                for note in notes:
                    error.add_note(note)
                raise
        smaller = _next_smaller(micro_batch, recipe)
        notes.append(
            f"out of memory with micro-batches of {micro_batch} images; restarted with {smaller} "
            f"(batch size {recipe.batch_size})"
        )
        log.warning(notes[-1])
        if options.world.writes:
            folder.require()
            clear(folder)
        saved, micro_batch, clock = None, smaller, Clock()
        release_memory(device)


def _next_smaller(micro_batch: int, recipe: Recipe) -> int:
    """Return the largest micro-batch of at most half the size that divides the batch."""
    return max(n for n in range(1, micro_batch // 2 + 1) if recipe.batch_size % n == 0)


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
        RuntimeError, MemoryError: if a micro-batch of this size does not fit into memory.
    """
    case = task.case
    with begin.clock.timing("start"):
        numerics = _numerics(case, device, micro_batch, begin.saved, options.world)
        seed_everything(case.seed)
        stop = SharedStop(options.world, options.should_stop)
        beats = Heartbeat(folder, stop.is_due) if options.world.writes else Follower(stop.is_due)
        beats.progress["device"] = describe_device(device).get("gpu", str(device))
        evaluator = open_evaluator(task, options, device, numerics, beats)
        model, facts = _build(case, folder, evaluator.setup)
        start_alike(model, case.seed, options.world)
        set_precision(numerics.precision, search=numerics.cudnn_benchmark)
        images = _training_images(case, evaluator)
        evaluator = replace(evaluator, loading=_loading(images, case.recipe, options, device))
        loading = evaluator.loading
        rate = "" if loading.images_per_s is None else f", {loading.images_per_s:.1f}/s"
    log.info("images: %s%s", loading.description, rate)
    job = Job(case, model, images, evaluator, task.select, folder, beats, stop)
    return Attempt(job, facts, train(job, begin))


def _numerics(
    case: Case, device: torch.device, micro_batch: int, saved: Saved | None, world: World
) -> Numerics:
    begun = saved.numerics if saved else None
    takes = takes_channels_last(case.model, case.dataset.labels.num_classes)
    return choose_numerics(case.recipe, device, BACKEND, micro_batch, begun, takes, world.size)


def use_device(options: Options) -> torch.device:
    """Return the requested device, after making it the current one."""
    device = pick_device(options.device)
    if device.type == "cpu" and sys.platform == "linux":
        keep_freed_memory()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _build(case: Case, folder: CaseFolder, setup: Setup) -> tuple[Segmenter, dict[str, Any]]:
    """Build a case's model on the device, with its parent's weights if it has a parent."""
    model, facts = build_model(case.model, setup.num_classes)
    if case.parent is not None:
        file = CaseFolder(folder.path.parent / case.parent.folder).weights
        state, parent = read_weights(file), case.parent
        unused, unfilled = load_part(model.net, state, parent.part, parent.name)
        facts |= {"init_from": parent.name, "init_from_unused": unused}
        facts |= {"init_from_unfilled": unfilled}
    log.info("model %s", facts)
    if case.recipe.freeze_encoder:
        model.freeze_encoder()
    synchronise(model.net, setup.world)
    if case.recipe.memory == "checkpoint":
        recompute_activations(model.net)
    return model.to(setup.device).lay_out(setup.numerics.memory_format), facts


def _training_samples(case: Case, dataset: Dataset) -> list[Sample]:
    return limited(dataset.samples(case.train_split), case.limit)


def _training_images(case: Case, evaluator: Evaluator) -> TrainImages:
    """Return the training images, decoded once if they are read more than once."""
    recipe, dataset = case.recipe, evaluator.dataset
    images = TrainImages(dataset, _training_samples(case, dataset), recipe, case.seed)
    num_read = recipe.steps * recipe.batch_size if recipe.steps else 0
    epochs = recipe.epochs or math.ceil(num_read / len(images))
    if recipe.epochs != 0:
        keep_decoded(images, evaluator.cache, case.train_split, epochs, evaluator.setup.beat)
    return images


def _loading(
    images: TrainImages, recipe: Recipe, options: Options, device: torch.device
) -> Loading:
    """Return how batches are fetched: as --loader-workers says, else as measured to be fastest.

    Each process of a case fetches its own share.
    """
    if options.loader_workers is not None:
        return Loading(options.loader_workers, pin_memory=device.type == "cuda")
    share = recipe.batch_size // options.world.size
    return options.world.from_first(choose_loading(images, share, device))


def _input_size(images: TrainImages) -> tuple[int, int]:
    """Return the (H, W) that training feeds the network."""
    image, _, _ = images.read(0)
    return image.shape[1], image.shape[2]


def open_evaluator(
    task: Task,
    options: Options,
    device: torch.device,
    numerics: Numerics,
    heartbeat: Heartbeat,
) -> Evaluator:
    """Open a case's dataset and build its evaluator."""
    case, recipe = task.case, task.case.recipe
    dataset = open_case_dataset(case, options.roots)
    num_classes = dataset.labels(dataset.options).num_classes
    samples = _training_samples(case, dataset)
    loss = with_counted_weights(
        recipe.loss, partial(class_counts, dataset, case.train_split, samples)
    )
    loss_fn = build_loss(loss, num_classes, device, recipe.aux_weight)
    return Evaluator(
        dataset=dataset,
        recipe=recipe,
        limit=case.limit,
        setup=Setup(device, numerics, num_classes, loss_fn, heartbeat, options.world),
        cache=options.cache or task.cache,
        loading=Loading(options.loader_workers or 0, pin_memory=device.type == "cuda"),
        batch_size=task.scoring_batch,
    )
