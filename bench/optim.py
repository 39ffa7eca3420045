"""Optimizers, and schedules as functions of the step."""

import math

from torch import nn, optim

from bench.recipe import Adam, AdamW, Constant, Cosine, Poly, Recipe, Step


def build_optimizer(recipe: Recipe, model: nn.Module) -> optim.Optimizer:
    """Return the recipe's optimizer over the trainable parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    spec = recipe.optimizer
    match spec:
        case Adam():
            return optim.Adam(parameters, spec.lr, spec.betas, weight_decay=spec.weight_decay)
        case AdamW():
            return optim.AdamW(parameters, spec.lr, spec.betas, weight_decay=spec.weight_decay)
        case _:
            return optim.SGD(parameters, spec.lr, spec.momentum, weight_decay=spec.weight_decay)


def learning_rate(recipe: Recipe, step: int, num_steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, 0..num_steps-1, as a pure function.

    Nothing of a schedule needs saving, so nothing of it can be lost.
    """
    lr, schedule = recipe.optimizer.lr, recipe.schedule
    epoch = step // steps_per_epoch
    match schedule:
        case Constant():
            now = lr
        case Poly():
            now = lr * (1 - step / num_steps) ** schedule.power
        case Cosine():
            num_epochs = math.ceil(num_steps / steps_per_epoch)
            wave = (1 + math.cos(math.pi * epoch / num_epochs)) / 2
            now = schedule.eta_min + (lr - schedule.eta_min) * wave
        case Step():
            now = lr * schedule.gamma ** (epoch // schedule.every)
    if recipe.warmup is not None and step < recipe.warmup.steps:
        start = recipe.warmup.factor
        now *= start + (1 - start) * step / recipe.warmup.steps
    return now


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every group of parameters the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
