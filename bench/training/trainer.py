"""The training of one case: epoch after epoch, from its seed or its checkpoint."""

import logging
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.datasets.base import Dataset
from bench.errors import UserError
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.setup import Setup
from bench.loading.images import TrainImages
from bench.loading.loader import EpochSampler, Loader, train_loader
from bench.machine.clock import Clock, reference_s
from bench.machine.device import autocast
from bench.machine.memory import peak_memory_mib, reset_peak_memory
from bench.machine.peak import peak_tflops
from bench.models.complexity import backward, state_bytes
from bench.models.segmenter import Segmenter
from bench.records.case_folder import CaseFolder
from bench.records.heartbeat import Heartbeat, Interrupted
from bench.records.history import write_history
from bench.records.record import Training
from bench.suite.case import Case
from bench.suite.evaluation import Evaluation
from bench.text import listed
from bench.training.checkpoint import Beginning, Progress, restore, save_checkpoint
from bench.training.distributed import SharedStop, give_to_first
from bench.training.epoch_row import shown, summary, trained_row, validated_row
from bench.training.loop import NotFinite, TrainState, train_epoch
from bench.training.optimizer import build_optimizer, learning_rate
from bench.training.selection import is_done, load_chosen, note_best

CHECKPOINT_EVERY_S = 60.0
FILES_SHOWN = 4  # of a batch, whose paths are long
log = logging.getLogger("bench.case")


@dataclass(frozen=True)
class Job:
    """What is trained, on which images, how it is scored between epochs, and where it is saved.

    select: the split that is scored between epochs.
    """

    case: Case
    model: Segmenter
    images: TrainImages
    evaluator: Evaluator
    select: str
    folder: CaseFolder
    heartbeat: Heartbeat
    stop: SharedStop

    @property
    def setup(self) -> Setup:
        """How the model runs."""
        return self.evaluator.setup


@dataclass(frozen=True)
class Trained:
    """What training took, the bytes of a checkpoint with the optimizer's state, and notes."""

    training: Training
    checkpoint_bytes: int
    notes: tuple[str, ...]


def train(job: Job, begin: Beginning) -> Trained:
    """Train a model as its case says, from a checkpoint if there is one.

    The model ends with the weights that the recipe's checkpoint rule chooses.

    Raises:
        Interrupted: after saving, if the heartbeat was asked to stop.
        UserError: if a loss is not finite, or no epoch had a score to choose by.
        CannotWrite: if a checkpoint or the history cannot be written.
    """
    recipe = job.case.recipe
    if recipe.epochs == 0:
        return _untrained(job, begin)
    loader, sampler = train_loader(
        job.images,
        recipe.batch_size,
        job.case.seed,
        job.evaluator.loading,
        job.setup.world.places(recipe.batch_size, job.setup.numerics.micro_batch),
    )
    state = _new_state(job, begin.clock)
    progress = restore(begin, state, job.setup)
    if progress.resumed:
        log.info("resumed at step %d of %d", state.step, state.num_steps)
    _compile(job, state.clock)
    job.heartbeat.progress |= {"num_epochs": state.num_epochs, "num_steps": state.num_steps}
    saved_at, warming_up = time.monotonic(), True
    try:
        while not is_done(progress, recipe, state.num_epochs):
            row = _train_one_epoch(job, state, progress, loader, sampler)
            row |= {"warm_up": warming_up, "reference_s": reference_s(job.setup.device)}
            if _is_validated(job, state, epoch=row["epoch"]):
                row |= _validate(job, state)
                score = row[f"select_{recipe.select_by}"]
                note_best(progress, job.model, recipe, row["epoch"], score)
            progress.history.append(row)
            progress.num_sharing = max(progress.num_sharing, job.heartbeat.num_sharing)
            if job.setup.world.writes:
                log.info("epoch %s", row)
                job.folder.require()
                write_history(job.folder.history, progress.history)
            state.begin_epoch()
            warming_up = False
            is_due = time.monotonic() - saved_at > CHECKPOINT_EVERY_S
            if is_due or is_done(progress, recipe, state.num_epochs):
                _save(job, state, progress)
                saved_at = time.monotonic()
    except NotFinite as error:
        raise _not_finite(error, job, state, sampler) from error
    except Interrupted:
        _save(job, state, progress)
        raise
    optimizer = state.optimizer.state_dict()["state"].values()
    num_bytes = state_bytes(job.model.net.state_dict()) + sum(map(state_bytes, optimizer))
    load_chosen(progress, job.model, recipe, job.select)
    training = summary(progress, state, len(job.images), recipe)
    peak = peak_tflops(job.setup.device, job.setup.numerics.precision)
    training = training.model_copy(update={"peak_tflops": peak})
    return Trained(training, num_bytes, progress.notes)


def _untrained(job: Job, begin: Beginning) -> Trained:
    """Return the result of a recipe with epochs: 0."""
    start_s = begin.clock.seconds["start"]
    nothing = Training(
        epochs=0,
        steps=0,
        num_train=len(job.images),
        total_s=0,
        start_s=start_s,
        num_sharing=begin.num_sharing,
    )
    return Trained(nothing, state_bytes(job.model.net.state_dict()), begin.notes)


def _new_state(job: Job, clock: Clock) -> TrainState:
    """Return the state before the first step."""
    recipe, setup = job.case.recipe, job.setup
    per_epoch = len(job.images) // recipe.batch_size
    numerics = setup.numerics
    return TrainState(
        model=job.model,
        optimizer=build_optimizer(recipe, job.model.net, fused=numerics.fused_optimizer or None),
        scaler=torch.amp.GradScaler(setup.device.type, enabled=numerics.precision == "fp16"),
        num_steps=recipe.steps or (recipe.epochs or 0) * per_epoch,
        steps_per_epoch=per_epoch,
        losses=torch.zeros(per_epoch, device=setup.device),
        counts=torch.zeros(4, setup.num_classes, dtype=torch.int64, device=setup.device),
        clock=clock,
    )


def _compile(job: Job, clock: Clock) -> None:
    """Compile the steps before they are timed, if the recipe asks for it."""
    numerics, device = job.setup.numerics, job.setup.device
    if numerics.compile is None:
        return
    image, _, _ = job.images.read(0)
    images = torch.zeros((numerics.micro_batch, *image.shape), dtype=torch.uint8, device=device)

    def step(images: Tensor) -> None:
        with autocast(device, numerics.precision):
            logits = job.model(images)
        backward(logits)

    with clock.timing("compile"):
        name = job.case.model.arch
        job.model.train().compile_for(numerics.compile, images, step, name)


def _train_one_epoch(
    job: Job, state: TrainState, progress: Progress, loader: Loader, sampler: EpochSampler
) -> dict[str, Any]:
    """Train the rest of the current epoch and return its row for the history."""
    recipe, device = job.case.recipe, job.setup.device
    epoch = len(progress.history)
    job.heartbeat.progress |= {**shown(progress.history), "step": state.step}
    first = epoch * state.steps_per_epoch
    sampler.epoch, sampler.start = epoch, state.step - first
    if state.step < min(first + state.steps_per_epoch, state.num_steps):
        reset_peak_memory(device)
        setup = replace(job.setup, beat=partial(_beat, job, state))
        try:
            with loader.guarded(), job.stop.in_training():
                train_epoch(state, loader, recipe, setup)
        except Interrupted:  # which all processes are, after the same step
            give_to_first(state, job.setup.world, device)
            raise
        state.peak_memory_mib = max(state.peak_memory_mib, peak_memory_mib(device) or 0.0)
        give_to_first(state, job.setup.world, device)
    return trained_row(state, epoch, recipe)


def _beat(job: Job, state: TrainState) -> None:
    job.stop.agree()
    job.heartbeat(step=state.step)


def _is_validated(job: Job, state: TrainState, epoch: int) -> bool:
    """Return whether an epoch, from 1, is followed by scoring on the selection split."""
    return epoch % job.case.recipe.validate_every == 0 or epoch == state.num_epochs


def _validate(job: Job, state: TrainState) -> dict[str, Any]:
    """Score the model between epochs and return that part of the history's row."""
    if job.setup.numerics.compile is not None:
        with state.clock.timing("compile"):
            job.evaluator.compile(job.model, Evaluation(split=job.select), job.case.model.arch)
    state.clock.reset("validation")  # an interrupted one is done again
    times_read = math.ceil(state.num_epochs / job.case.recipe.validate_every)
    with state.clock.timing("validation"):
        counts = job.evaluator.count(job.model, Evaluation(split=job.select), times_read)
    return validated_row(counts, state.clock.seconds["validation"])


def _save(job: Job, state: TrainState, progress: Progress) -> None:
    if not job.setup.world.writes:
        return
    job.folder.require()
    data = trained_on(job.evaluator.dataset, job.case, job.select)
    save_checkpoint(job.folder, job.case.id, data, state, progress, job.setup)


def trained_on(dataset: Dataset, case: Case, select: str) -> str:
    """Return the fingerprint of the data that the result depends on.

    Args:
        select: the split that chooses the best epoch, which counts if the recipe chooses one.
    """
    splits = (case.train_split, select) if case.recipe.selects else (case.train_split,)
    return " ".join(map(dataset.fingerprint, splits))


def _not_finite(error: NotFinite, job: Job, state: TrainState, sampler: EpochSampler) -> UserError:
    """Describe where training broke: epoch, step, learning rate and the files of that batch."""
    epoch, number = divmod(error.step, state.steps_per_epoch)
    batch = [job.images.samples[index] for _, index in sampler.batches(epoch)[number]]
    files = [str(sample.image or sample.id) for sample in batch]
    lr = learning_rate(job.case.recipe, error.step, state.num_steps, state.steps_per_epoch)
    log.error("the batch of step %d: %s", error.step + 1, ", ".join(files))
    return UserError(
        f"The training loss is {error.loss} in epoch {epoch + 1}, step {error.step + 1} of "
        f"{state.num_steps}, at learning rate {lr:g}, on {listed(files, FILES_SHOWN)}. Look at "
        "these files, lower the learning rate, clip gradients (clip_grad) or train in fp32."
    )
