"""Optimizers, and schedules as functions of the step."""

import math

from torch import nn, optim

from bench.errors import UserError
from bench.models.networks import find_encoder
from bench.suite.optimizer import Adam, AdamW, Constant, Cosine, Poly, Step
from bench.suite.recipe import Recipe


def build_optimizer(
    recipe: Recipe, net: nn.Module, *, fused: bool | None = None
) -> optim.Optimizer:
    """Return the recipe's optimizer over the trainable parameters.

    Parameters of the encoder, and those without decay, are in separate groups if the recipe
    treats them differently; a group's learning rate is multiplied by its `lr_factor`.

    Args:
        fused: True: one kernel per step, which also unscales gradients; without it, a
            GradScaler waits for the GPU in every step. None: as torch chooses.

    Raises:
        UserError: if the recipe has settings for an encoder and the network has none, or if there
            is nothing to train.
    """
    encoder = set()
    if recipe.encoder_lr != 1:
        encoder = set(find_encoder(net, "encoder_lr").parameters())
    spec = recipe.optimizer
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in net.parameters():
        if not parameter.requires_grad:
            continue
        # Only biases and the scales and shifts of norms have one axis.
        decays = recipe.decay == "all" or parameter.ndim > 1
        factor = recipe.encoder_lr if parameter in encoder else 1.0
        groups.setdefault((factor, spec.weight_decay if decays else 0.0), []).append(parameter)
    if not groups:
        raise UserError("The network has no parameters to train; epochs: 0 scores it as it is.")
    parameters = [
        {"params": group, "lr_factor": factor, "weight_decay": decay}
        for (factor, decay), group in groups.items()
    ]
    match spec:
        case Adam():
            return optim.Adam(parameters, spec.lr, spec.betas, amsgrad=spec.amsgrad, fused=fused)
        case AdamW():
            return optim.AdamW(parameters, spec.lr, spec.betas, amsgrad=spec.amsgrad, fused=fused)
        case _:
            return optim.SGD(parameters, spec.lr, spec.momentum, fused=fused)


def learning_rate(recipe: Recipe, step: int, num_steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, 0..num_steps-1, as a pure function.

    A schedule has no state, so there is nothing to save or lose.
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
    """Set the learning rate of every parameter group, times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
