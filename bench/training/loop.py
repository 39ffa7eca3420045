"""The training loop."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from bench.evaluation.confusion import count_pixels, per_class
from bench.evaluation.setup import Setup
from bench.loading.loader import Batch, require_one_size
from bench.machine.clock import Clock, idle_between, synchronize
from bench.machine.device import autocast
from bench.machine.world import World
from bench.models.segmenter import Heads, Segmenter
from bench.suite.recipe import Recipe
from bench.training.gradients import Gradients
from bench.training.losses import mean
from bench.training.optimizer import learning_rate, set_learning_rate

COUNT_EVERY = 4  # every fourth row and column is counted: neighbours are similar
LOOK_EVERY = 100  # steps between checks of the losses; each check waits for the device


class NotFinite(Exception):
    """The loss of a step is NaN or infinite."""

    def __init__(self, loss: float, step: int) -> None:
        super().__init__(f"the loss of step {step + 1} is {loss}")
        self.loss, self.step = loss, step


@dataclass
class TrainState:
    """The state of the training; what changes in it is saved in the checkpoint.

    step: optimizer steps done, of num_steps.
    losses: of the steps of this epoch, (steps_per_epoch,) float32 on the device; the part of this
        process, as of counts.
    counts: (4, K) int64 on the device, as `per_class` has them, of what the model predicted in
        the steps of this epoch: in training mode, on augmented images, at every fourth pixel of
        every fourth row.
    peak_memory_mib: of this epoch's training so far.
    clock: its training and data_wait are those of this epoch so far.
    random_of_others: of the other processes, in the order of their ranks, when they last stopped.
    """

    model: Segmenter
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    num_steps: int
    steps_per_epoch: int
    losses: Tensor
    counts: Tensor
    clock: Clock
    step: int = 0
    peak_memory_mib: float = 0.0
    random_of_others: tuple[dict[str, Any], ...] = ()

    @property
    def num_epochs(self) -> int:
        """Total number of epochs; the last one may be shorter."""
        return math.ceil(self.num_steps / self.steps_per_epoch)

    def begin_epoch(self) -> None:
        """Reset what belongs to one epoch."""
        self.losses.zero_()
        self.counts.zero_()
        self.clock.reset("training", "validation", "data_wait")
        self.peak_memory_mib = 0.0

    def require_finite(self, first: int, world: World) -> None:
        """Check the losses of the epoch that began with step `first`; waits for the device.

        Raises:
            NotFinite: with the first step, from 0, whose loss is not finite.
        """
        losses = world.add_up(self.losses[: self.step - first].clone()).cpu()
        broken = (~losses.isfinite()).nonzero().flatten().tolist()
        if broken:
            raise NotFinite(float(losses[broken[0]]), first + broken[0])


def train_epoch(state: TrainState, batches: Iterable[Batch], recipe: Recipe, setup: Setup) -> None:
    """Train on `batches` to the end of the epoch or of the recipe.

    Args:
        batches: images (N, 3, H, W) uint8, targets (N, H, W) uint8 and ids.
        setup: its `beat` is called after each step; if it raises, `state` can still be saved.

    Raises:
        NotFinite: soon after a step whose loss is not finite.
    """
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    device, numerics, loss_fn, world = setup.device, setup.numerics, setup.loss_fn, setup.world
    micro_batch = numerics.micro_batch // world.size  # images of this process in one pass
    gradients = Gradients(world, list(model.parameters()))
    first = state.step // state.steps_per_epoch * state.steps_per_epoch
    model.train()
    synchronize(device)
    with state.clock.timing("training"):
        waited = idle_between(batches, device, state.clock)
        try:
            for images, targets, ids in waited:
                image = require_one_size(images, ids).to(device, non_blocking=True)
                target = require_one_size(targets, ids).to(device, non_blocking=True).long()
                target = model.geometry.reduced(target)
                lr = learning_rate(recipe, state.step, state.num_steps, state.steps_per_epoch)
                set_learning_rate(optimizer, lr)
                # Of the whole step, over its micro-batches and all processes.
                weights = world.add_up(loss_fn.weights(target))
                step_loss = torch.zeros((), device=device)
                step_counts = torch.zeros_like(state.counts)
                micro_batches = zip(
                    torch.split(image, micro_batch), torch.split(target, micro_batch), strict=True
                )
                for micro_image, micro_target in micro_batches:
                    with autocast(device, numerics.precision):
                        logits = model(micro_image)
                    loss = mean(loss_fn.totals(logits, micro_target), weights)
                    scaler.scale(loss).backward()
                    step_loss += loss.detach()  # stays on the device: no .item() here
                    step_counts += _counts(logits, micro_target, state.counts.shape[1])
                gradients.add_up()
                if recipe.clip_grad is not None:
                    scaler.unscale_(optimizer)
                    clip_grad_norm_(model.parameters(), recipe.clip_grad)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                state.losses[state.step - first] = step_loss
                state.counts += step_counts
                state.step += 1
                if (state.step - first) % LOOK_EVERY == 0:
                    state.require_finite(first, world)
                setup.beat()
                if state.step == state.num_steps:
                    break
        finally:
            synchronize(device)
            waited.close()
    state.require_finite(first, world)


def _counts(logits: Tensor | Heads, target: Tensor, num_classes: int) -> Tensor:
    """Count the predictions of a micro-batch, without its auxiliary heads."""
    out = logits if isinstance(logits, Tensor) else logits["out"]
    sampled = out.detach()[:, :, ::COUNT_EVERY, ::COUNT_EVERY]
    pred, true = sampled.max(1).indices, target[:, ::COUNT_EVERY, ::COUNT_EVERY]
    return per_class(count_pixels(pred, true, num_classes)).sum(0)
