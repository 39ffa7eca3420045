"""The training of one case: epochs, history, checkpoints."""

import csv
import io
import logging
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench import scores
from bench.atomic import write_text
from bench.checkpoint import History, load_checkpoint, save_checkpoint
from bench.data.images import TrainImages
from bench.data.loader import train_loader
from bench.errors import UserError
from bench.evaluation import Evaluation
from bench.heartbeat import Heartbeat, Interrupted
from bench.models import Segmenter
from bench.optim import build_optimizer, learning_rate
from bench.profiling import peak_memory_mib, reset_peak_memory, state_bytes
from bench.recipe import Recipe
from bench.record import CaseFolder, Training
from bench.scoring import Scorer
from bench.train import TrainState, train_epoch

CHECKPOINT_EVERY_S = 60.0
log = logging.getLogger("bench.case")


@dataclass(frozen=True)
class Trained:
    """What training took, and the bytes of a checkpoint with the optimizer's state."""

    training: Training
    checkpoint_bytes: int


def train_case(
    model: Segmenter,
    images: TrainImages,
    scorer: Scorer,
    folder: CaseFolder,
    select: str,
    heartbeat: Heartbeat,
) -> Trained:
    """Train a model as its case says, from its checkpoint where there is one.

    Args:
        select: the split that is scored while training.

    Raises:
        Interrupted: after saving, where the heartbeat was asked to stop.
    """
    case, recipe, device = scorer.case, scorer.case.recipe, scorer.device
    if recipe.epochs == 0:
        nothing = Training(epochs=0, steps=0, num_train=len(images), total_s=0)
        return Trained(nothing, state_bytes(model.net.state_dict()))
    loader, sampler = train_loader(images, recipe.batch_size, case.seed, scorer.loading)
    state = _begin(model, scorer, len(images))
    data = scorer.dataset.fingerprint(case.train_split)
    history, resumed = load_checkpoint(folder.checkpoint, case.id, data, state, device)
    if resumed:
        log.info("resumed at step %d of %d", state.step, state.num_steps)

    def save() -> None:
        save_checkpoint(
            folder.checkpoint, case.id, data, state, history, scorer.numerics, resumed, device
        )

    def beat() -> None:
        heartbeat(step=state.step)

    num_epochs = math.ceil(state.num_steps / state.steps_per_epoch)
    heartbeat.progress |= {"num_epochs": num_epochs, "num_steps": state.num_steps}
    num_scored = math.ceil(num_epochs / recipe.validate_every)
    saved, warming_up = time.monotonic(), True
    try:
        while len(history) < num_epochs:
            epoch = len(history)
            heartbeat.progress |= {**_shown(history), "step": state.step}
            first = epoch * state.steps_per_epoch
            sampler.epoch, sampler.start = epoch, state.step - first
            if state.step < min(first + state.steps_per_epoch, state.num_steps):
                reset_peak_memory(device)
                precision = scorer.numerics.precision
                with loader.guarded():
                    train_epoch(state, loader, recipe, scorer.loss_fn, device, precision, beat)
                state.peak_memory_mib = max(state.peak_memory_mib, peak_memory_mib(device) or 0.0)
            row = _row(state, epoch, recipe) | {"warm_up": warming_up}
            if (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == num_epochs:
                counts = scorer.count(model, Evaluation(split=select), beat, num_scored)
                found = scores.finite(scores.scores(counts.per_image) | {"loss": counts.loss})
                row |= {f"select_{name}": value for name, value in found.items()}
            history.append(row)
            log.info("epoch %s", row)
            state.begin_epoch()
            warming_up = False
            _write_history(folder, history)
            if time.monotonic() - saved > CHECKPOINT_EVERY_S or len(history) == num_epochs:
                save()
                saved = time.monotonic()
    except Interrupted:
        save()
        raise
    optimizer = state.optimizer.state_dict()["state"].values()
    return Trained(
        _training(history, state, len(images), resumed),
        state_bytes(model.net.state_dict()) + sum(map(state_bytes, optimizer)),
    )


def _begin(model: Segmenter, scorer: Scorer, num_train: int) -> TrainState:
    """Return a training before its first step."""
    recipe, device = scorer.case.recipe, scorer.device
    per_epoch = num_train // recipe.batch_size
    return TrainState(
        model=model,
        optimizer=build_optimizer(recipe, model),
        scaler=torch.amp.GradScaler(device.type, enabled=scorer.numerics.precision == "fp16"),
        num_steps=recipe.steps or (recipe.epochs or 0) * per_epoch,
        steps_per_epoch=per_epoch,
        total_loss=torch.zeros((), device=device),
    )


def _row(state: TrainState, epoch: int, recipe: Recipe) -> dict[str, Any]:
    """Return the history's row of an epoch just trained.

    Raises:
        UserError: where the loss is not finite.
    """
    steps = state.step - epoch * state.steps_per_epoch
    loss = float(state.total_loss) / steps
    if not math.isfinite(loss):
        raise UserError(
            f"The training loss is {loss} in epoch {epoch + 1}; lower the learning rate "
            f"({recipe.optimizer.lr}), clip gradients (clip_grad) or train in fp32."
        )
    return {
        "epoch": epoch + 1,
        "step": state.step,
        "steps": steps,
        "lr": learning_rate(recipe, state.step - 1, state.num_steps, state.steps_per_epoch),
        "loss": loss,
        "seconds": state.seconds,
        "data_wait_s": state.data_wait_s,
        "images_per_s": steps * recipe.batch_size / state.seconds,
        "peak_memory_mib": state.peak_memory_mib or None,
    }


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


def _training(history: History, state: TrainState, num_train: int, resumed: int) -> Training:
    """Sum up; an epoch's time is the median of the whole epochs that were no warm-up."""
    timed = [r for r in history if not r["warm_up"] and r["steps"] == state.steps_per_epoch]
    epoch_s = statistics.median(row["seconds"] for row in timed) if timed else None
    waits = [row["data_wait_s"] / row["seconds"] for row in timed]
    peaks = [row["peak_memory_mib"] for row in history if row["peak_memory_mib"] is not None]
    return Training(
        epochs=len(history),
        steps=state.step,
        num_train=num_train,
        first_epoch_s=history[0]["seconds"],
        epoch_s=epoch_s,
        images_per_s=statistics.median(r["images_per_s"] for r in timed) if timed else None,
        data_wait_share=statistics.median(waits) if waits else None,
        total_s=sum(row["seconds"] for row in history),
        resumed=resumed,
        peak_memory_mib=max(peaks, default=None),
        loss=history[-1]["loss"],
    )


def _write_history(folder: CaseFolder, history: History) -> None:
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder.history, text.getvalue(), sync=False)
