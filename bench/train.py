"""The training loop."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from bench.data.loader import require_one_size
from bench.device import Precision, autocast, synchronize
from bench.losses import PixelLoss, mean
from bench.models import Segmenter
from bench.optim import learning_rate, set_learning_rate
from bench.recipe import Recipe


@dataclass
class TrainState:
    """Where a training stands; all of it goes into the checkpoint.

    step: optimizer steps done, of num_steps.
    total_loss: sum of the steps' losses of this epoch so far, a scalar on the device.
    seconds, data_wait_s, peak_memory_mib: of this epoch's training so far.
    """

    model: Segmenter
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    num_steps: int
    steps_per_epoch: int
    total_loss: Tensor
    step: int = 0
    seconds: float = 0.0
    data_wait_s: float = 0.0
    peak_memory_mib: float = 0.0

    def begin_epoch(self) -> None:
        """Forget what is of one epoch alone."""
        self.total_loss.zero_()
        self.seconds = self.data_wait_s = self.peak_memory_mib = 0.0


def train_epoch(
    state: TrainState,
    batches: Any,
    recipe: Recipe,
    loss_fn: PixelLoss,
    device: torch.device,
    precision: Precision,
    beat: Callable[[], None],
) -> None:
    """Train on what `batches` gives, to the end of the epoch or of the recipe.

    Args:
        batches: images (N, 3, H, W) uint8, targets (N, H, W) uint8 and ids.
        beat: called after each step; what it raises leaves `state` whole.
    """
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    model.train()
    synchronize(device)
    start, before = time.perf_counter(), state.seconds
    try:
        for images, targets, ids in _waiting(batches, state):
            image = require_one_size(images, ids).to(device, non_blocking=True)
            target = require_one_size(targets, ids).to(device, non_blocking=True).long()
            target = model.geometry.reduced(target)
            lr = learning_rate(recipe, state.step, state.num_steps, state.steps_per_epoch)
            set_learning_rate(optimizer, lr)
            weight = loss_fn.weight(target)  # of the whole step, over its micro-batches
            micro_batches = zip(
                torch.split(image, recipe.micro_batch),
                torch.split(target, recipe.micro_batch),
                strict=True,
            )
            for micro_image, micro_target in micro_batches:
                with autocast(device, precision):
                    logits = model(micro_image)
                loss = mean(loss_fn.total(logits, micro_target), weight)
                scaler.scale(loss).backward()
                state.total_loss += loss.detach()  # stays on the device: no .item() here
            if recipe.clip_grad is not None:
                scaler.unscale_(optimizer)
                clip_grad_norm_(model.parameters(), recipe.clip_grad)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            beat()
            if state.step == state.num_steps:
                break
    finally:
        synchronize(device)
        state.seconds = before + time.perf_counter() - start


def _waiting(batches: Any, state: TrainState) -> Iterator[Any]:
    """Pass batches on, adding up the time spent waiting for them."""
    start = time.perf_counter()
    for batch in batches:
        state.data_wait_s += time.perf_counter() - start
        yield batch
        start = time.perf_counter()
