"""The row of an epoch in the history, and the summary of all epochs for a record."""

import statistics
from collections.abc import Mapping
from typing import Any

from bench.evaluation import scores
from bench.evaluation.inference import Counts
from bench.records.history import History
from bench.records.record import Training
from bench.suite.recipe import Recipe
from bench.training.checkpoint import Progress
from bench.training.loop import TrainState
from bench.training.optimizer import learning_rate


def trained_row(state: TrainState, epoch: int, recipe: Recipe) -> dict[str, Any]:
    """Return the history's row of an epoch (from 0) that was just trained."""
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


def validated_row(counts: Counts, validation_s: float) -> dict[str, Any]:
    """Return the part of an epoch's row with the scores on the selection split."""
    found = scores.finite(scores.scores(counts.per_image) | {"loss": counts.loss})
    return {f"select_{name}": value for name, value in found.items()} | {
        "validation_s": validation_s
    }


def shown(history: History) -> Mapping[str, Any]:
    """Return what the heartbeat shows of the epochs so far."""
    last = history[-1] if history else {}
    scored = [row["select_miou"] for row in history if row.get("select_miou") is not None]
    return {
        "epoch": len(history) + 1,
        "loss": last.get("loss"),
        "miou": scored[-1] if scored else None,
        "images_per_s": last.get("images_per_s"),
    }


def summary(progress: Progress, state: TrainState, num_train: int, recipe: Recipe) -> Training:
    """Summarise the training; `epoch_s` is the median of whole epochs after the warm-up."""
    history = progress.history
    timed = [r for r in history if not r["warm_up"] and r["steps"] == state.steps_per_epoch]
    waits = [row["data_wait_s"] / row["seconds"] for row in timed]
    peaks = [row["peak_memory_mib"] for row in history if row["peak_memory_mib"] is not None]
    best = progress.best if recipe.checkpoint == "best" else None
    return Training(
        epochs=len(history),
        steps=state.step,
        num_train=num_train,
        start_s=state.clock.seconds["start"],
        compile_s=state.clock.seconds["compile"] or None,
        first_epoch_s=history[0]["seconds"],
        epoch_s=statistics.median(row["seconds"] for row in timed) if timed else None,
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
        stopped_early=len(history) < state.num_epochs,
        num_sharing=progress.num_sharing,
    )
