"""The training of one case: epochs, history, checkpoints, the choice of the result."""

import csv
import io
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench import scores
from bench.atomic import write_text
from bench.case_folder import CaseFolder
from bench.checkpoint import Beginning, Best, History, Progress, restore, save_checkpoint
from bench.clock import Clock
from bench.columns import COLUMNS
from bench.data.images import TrainImages
from bench.data.loader import EpochSampler, train_loader
from bench.errors import UserError
from bench.evaluation import Evaluation
from bench.heartbeat import Heartbeat, Interrupted
from bench.models import Segmenter
from bench.optim import build_optimizer, learning_rate
from bench.profiling import peak_memory_mib, reset_peak_memory, state_bytes
from bench.recipe import Recipe
from bench.record import Training
from bench.reference import reference_s
from bench.scoring import Scorer
from bench.train import NotFinite, TrainState, train_epoch

CHECKPOINT_EVERY_S = 60.0
MOST_FILES = 4  # of a batch that a message names
log = logging.getLogger("bench.case")


@dataclass(frozen=True)
class Trained:
    """What training took, the bytes of a checkpoint with the optimizer's state, and notes."""

    training: Training
    checkpoint_bytes: int
    notes: tuple[str, ...]


def train_case(
    model: Segmenter,
    images: TrainImages,
    scorer: Scorer,
    folder: CaseFolder,
    select: str,
    heartbeat: Heartbeat,
    begin: Beginning,
) -> Trained:
    """Train a model as its case says, from a checkpoint where there is one.

    The model ends with the weights that the recipe's checkpoint rule chooses.

    Args:
        select: the split that is scored while training.

    Raises:
        Interrupted: after saving, where the heartbeat was asked to stop.
        UserError: where a loss is not finite.
    """
    case, recipe, device, clock = scorer.case, scorer.case.recipe, scorer.device, begin.clock
    if recipe.epochs == 0:
        nothing = Training(
            epochs=0, steps=0, num_train=len(images), total_s=0, start_s=clock.seconds["start"]
        )
        return Trained(nothing, state_bytes(model.net.state_dict()), begin.notes)
    loader, sampler = train_loader(images, recipe.batch_size, case.seed, scorer.loading)
    state = _begin(model, scorer, len(images), clock)
    progress = restore(begin, state, device)
    if progress.resumed:
        log.info("resumed at step %d of %d", state.step, state.num_steps)
    history, data = progress.history, scorer.dataset.fingerprint(case.train_split)

    def save() -> None:
        save_checkpoint(folder, case.id, data, state, progress, scorer.numerics, device)

    def beat() -> None:
        heartbeat(step=state.step)

    num_epochs = math.ceil(state.num_steps / state.steps_per_epoch)
    heartbeat.progress |= {"num_epochs": num_epochs, "num_steps": state.num_steps}
    num_scored = math.ceil(num_epochs / recipe.validate_every)
    saved_at, warming_up = time.monotonic(), True
    try:
        while not _is_done(progress, recipe, num_epochs):
            epoch = len(history)
            heartbeat.progress |= {**_shown(history), "step": state.step}
            first = epoch * state.steps_per_epoch
            sampler.epoch, sampler.start = epoch, state.step - first
            if state.step < min(first + state.steps_per_epoch, state.num_steps):
                reset_peak_memory(device)
                with loader.guarded():
                    train_epoch(
                        state, loader, recipe, scorer.loss_fn, device, scorer.numerics, beat
                    )
                state.peak_memory_mib = max(state.peak_memory_mib, peak_memory_mib(device) or 0.0)
            row = _row(state, epoch, recipe)
            row |= {"warm_up": warming_up, "reference_s": reference_s(device)}
            if (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == num_epochs:
                row |= _validate(model, scorer, select, clock, beat, num_scored)
                score = row[f"select_{recipe.select_by}"]
                _note_best(progress, model, recipe, epoch + 1, score)
            history.append(row)
            log.info("epoch %s", row)
            state.begin_epoch()
            warming_up = False
            _write_history(folder, history)
            done = _is_done(progress, recipe, num_epochs)
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S or done:
                save()
                saved_at = time.monotonic()
    except NotFinite as error:
        raise _not_finite(error, state, sampler, images, recipe) from error
    except Interrupted:
        save()
        raise
    optimizer = state.optimizer.state_dict()["state"].values()
    num_bytes = state_bytes(model.net.state_dict()) + sum(map(state_bytes, optimizer))
    _choose(progress, model, recipe, select)
    training = _training(progress, state, len(images), num_epochs, recipe)
    return Trained(training, num_bytes, progress.notes)


def _begin(model: Segmenter, scorer: Scorer, num_train: int, clock: Clock) -> TrainState:
    """Return a training before its first step."""
    recipe, device = scorer.case.recipe, scorer.device
    per_epoch = num_train // recipe.batch_size
    return TrainState(
        model=model,
        optimizer=build_optimizer(recipe, model.net),
        scaler=torch.amp.GradScaler(device.type, enabled=scorer.numerics.precision == "fp16"),
        num_steps=recipe.steps or (recipe.epochs or 0) * per_epoch,
        steps_per_epoch=per_epoch,
        losses=torch.zeros(per_epoch, device=device),
        counts=torch.zeros(4, scorer.labels.num_classes, dtype=torch.int64, device=device),
        clock=clock,
    )


def _is_done(progress: Progress, recipe: Recipe, num_epochs: int) -> bool:
    """Say whether the last epoch is done, or patience is over."""
    if len(progress.history) >= num_epochs:
        return True
    if recipe.patience is None or progress.best is None:
        return False
    last_scored = max(int(row["epoch"]) for row in progress.history if "validation_s" in row)
    return last_scored - progress.best.epoch >= recipe.patience


def _validate(
    model: Segmenter,
    scorer: Scorer,
    select: str,
    clock: Clock,
    beat: Callable[[], None],
    num_scored: int,
) -> dict[str, Any]:
    """Score a model between epochs; return what its history's row has of that."""
    clock.reset("validation")  # an interrupted one is done again
    with clock.timing("validation"):
        counts = scorer.count(model, Evaluation(split=select), beat, num_scored)
    found = scores.finite(scores.scores(counts.per_image) | {"loss": counts.loss})
    told = {f"select_{name}": value for name, value in found.items()}
    return told | {"validation_s": clock.seconds["validation"]}


def _note_best(
    progress: Progress, model: Segmenter, recipe: Recipe, epoch: int, score: float | None
) -> None:
    """Keep the epoch with the best score, and its weights where they are to be the result."""
    if not recipe.selects or score is None:
        return
    sign = -1 if COLUMNS[recipe.select_by].better == "lower" else 1
    if progress.best is not None and sign * score <= sign * progress.best.score:
        return
    weights = None
    if recipe.checkpoint == "best":
        weights = {k: v.detach().cpu().clone() for k, v in model.net.state_dict().items()}
    progress.best = Best(epoch, score, weights)


def _choose(progress: Progress, model: Segmenter, recipe: Recipe, select: str) -> None:
    """Put the best epoch's weights into the model, where the recipe asks for them."""
    if recipe.checkpoint == "last":
        return
    if progress.best is None:
        raise UserError(f"checkpoint: best: {recipe.select_by} on {select} never had a value.")
    assert progress.best.state is not None
    model.net.load_state_dict(progress.best.state)


def _row(state: TrainState, epoch: int, recipe: Recipe) -> dict[str, Any]:
    """Return the history's row of an epoch just trained."""
    steps = state.step - epoch * state.steps_per_epoch
    seconds = state.clock.seconds
    trained = scores.finite(scores.scores(state.counts.cpu().numpy()))
    return {
        "epoch": epoch + 1,
        "step": state.step,
        "steps": steps,
        "lr": learning_rate(recipe, state.step - 1, state.num_steps, state.steps_per_epoch),
        "loss": float(state.losses[:steps].mean()),
        **{f"train_{name}": value for name, value in trained.items()},
        "seconds": seconds["training"],
        "data_wait_s": seconds["data_wait"],
        "images_per_s": steps * recipe.batch_size / seconds["training"],
        "peak_memory_mib": state.peak_memory_mib or None,
    }


def _not_finite(
    error: NotFinite,
    state: TrainState,
    sampler: EpochSampler,
    images: TrainImages,
    recipe: Recipe,
) -> UserError:
    """Say where training broke: epoch, step, learning rate and the files of that batch."""
    epoch, number = divmod(error.step, state.steps_per_epoch)
    batch = [images.samples[index] for _, index in sampler.batches(epoch)[number]]
    files = [str(sample.image or sample.id) for sample in batch]
    shown = ", ".join(files[:MOST_FILES]) + (", …" if len(files) > MOST_FILES else "")
    lr = learning_rate(recipe, error.step, state.num_steps, state.steps_per_epoch)
    log.error("the batch of step %d: %s", error.step + 1, ", ".join(files))
    return UserError(
        f"The training loss is {error.loss} in epoch {epoch + 1}, step {error.step + 1} of "
        f"{state.num_steps}, at learning rate {lr:g}, on {shown}. Look at these files, lower the "
        "learning rate, clip gradients (clip_grad) or train in fp32."
    )


def _shown(history: History) -> Mapping[str, Any]:
    """Return what progress shows of the epochs so far."""
    last = history[-1] if history else {}
    scored = [row["select_miou"] for row in history if row.get("select_miou") is not None]
    return {
        "epoch": len(history) + 1,
        "loss": last.get("loss"),
        "miou": scored[-1] if scored else None,
        "images_per_s": last.get("images_per_s"),
    }


def _training(
    progress: Progress, state: TrainState, num_train: int, num_epochs: int, recipe: Recipe
) -> Training:
    """Sum up; an epoch's time is the median of the whole epochs that were no warm-up."""
    history = progress.history
    timed = [r for r in history if not r["warm_up"] and r["steps"] == state.steps_per_epoch]
    epoch_s = statistics.median(row["seconds"] for row in timed) if timed else None
    waits = [row["data_wait_s"] / row["seconds"] for row in timed]
    peaks = [row["peak_memory_mib"] for row in history if row["peak_memory_mib"] is not None]
    best = progress.best if recipe.checkpoint == "best" else None
    return Training(
        epochs=len(history),
        steps=state.step,
        num_train=num_train,
        start_s=state.clock.seconds["start"],
        first_epoch_s=history[0]["seconds"],
        epoch_s=epoch_s,
        images_per_s=statistics.median(r["images_per_s"] for r in timed) if timed else None,
        data_wait_share=statistics.median(waits) if waits else None,
        validation_s=statistics.median(
            row["validation_s"] for row in history if "validation_s" in row
        ),
        total_s=sum(row["seconds"] for row in history),
        resumed=progress.resumed,
        peak_memory_mib=max(peaks, default=None),
        loss=history[-1]["loss"],
        chosen_epoch=len(history) if best is None else best.epoch,
        stopped_early=len(history) < num_epochs,
        num_sharing=progress.num_sharing,
    )


def _write_history(folder: CaseFolder, history: History) -> None:
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder.history, text.getvalue(), sync=False)
