"""Training steps on a batch in memory, as a case runs them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from bench.evaluation.setup import Setup
from bench.loading.loader import Batch
from bench.machine.clock import Clock
from bench.machine.device import autocast, set_precision
from bench.machine.numerics import Numerics
from bench.models.complexity import backward
from bench.models.segmenter import Segmenter, build_model
from bench.suite.model import ModelSpec
from bench.suite.recipe import Recipe
from bench.suite.schema import Size
from bench.training.loop import TrainState, train_epoch
from bench.training.losses import build_loss
from bench.training.optimizer import build_optimizer

NUM_CLASSES = 11
Steps = Callable[[Iterable[Batch], int], None]  # trains on so many batches


def noise(batch_size: int, size: Size, device: torch.device) -> Batch:
    """Make a batch of random images and targets on a device."""
    shape = (batch_size, 3, *size)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    target = torch.randint(0, NUM_CLASSES, (batch_size, *size), dtype=torch.uint8, device=device)
    return image, target, ["noise"] * batch_size


def built(spec: ModelSpec, numerics: Numerics, device: torch.device) -> Segmenter:
    """Build a network with random weights, the same each time, laid out as numerics say."""
    torch.manual_seed(0)
    model, _ = build_model(spec.model_copy(update={"weights": None}), NUM_CLASSES)
    return model.to(device).lay_out(numerics.memory_format)


def training(
    model: Segmenter, numerics: Numerics, batch: Batch, device: torch.device, name: str
) -> Steps:
    """Return a function that trains a model on batches, as often as it is called.

    A model that numerics compile is compiled first, for images of the batch's shape.
    """
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": len(batch[0])})
    set_precision(numerics.precision, search=numerics.cudnn_benchmark)
    if numerics.compile is not None:

        def once(image: Tensor) -> None:
            with autocast(device, numerics.precision):
                logits = model(image)
            backward(logits)

        assert isinstance(batch[0], Tensor)
        model.train().compile_for(numerics.compile, batch[0].to(device), once, name)
    loss = build_loss(recipe.loss, NUM_CLASSES, device, recipe.aux_weight)
    setup = Setup(device, numerics, NUM_CLASSES, loss)
    fused = numerics.fused_optimizer or None
    state = TrainState(
        model=model,
        optimizer=build_optimizer(recipe, model.net, fused=fused),
        scaler=torch.amp.GradScaler(device.type, enabled=numerics.precision == "fp16"),
        num_steps=1_000_000,
        steps_per_epoch=1,
        losses=torch.zeros(1, device=device),
        counts=torch.zeros(4, NUM_CLASSES, dtype=torch.int64, device=device),
        clock=Clock(),
    )

    def run(batches: Iterable[Batch], num_steps: int) -> None:
        set_precision(numerics.precision, search=numerics.cudnn_benchmark)
        state.step, state.steps_per_epoch = 0, num_steps
        state.losses = torch.zeros(num_steps, device=device)
        state.begin_epoch()
        train_epoch(state, batches, recipe, setup)

    return run
