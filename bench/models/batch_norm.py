"""BatchNorm over the images of all processes that train together, on CPUs as on GPUs."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from bench.machine.world import World

ARGUMENTS = (
    *("input", "running_mean", "running_var", "weight", "bias"),
    *("training", "momentum", "eps"),
)


def synchronise(net: nn.Module, world: World) -> None:
    """Let the BatchNorms of a network normalise, in training, over the images of all processes.

    Running statistics become those of one process that sees all these images. The names in the
    state dict and the classes, to `isinstance`, stay; subclasses that do more, such as timm's with
    an activation, do it still. torch's SyncBatchNorm refuses tensors on a CPU and replaces modules.
    """
    if world.is_alone:
        return
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    own = {kind: _synchronised(kind, world) for kind in {type(norm) for norm in norms}}
    for norm in norms:
        # Not a mode around the whole network: activation checkpointing calls modules again in the
        # backward pass, which may be in another thread, where the mode is not active.
        norm.__class__ = own[type(norm)]  # type: ignore[assignment]


def _synchronised(kind: type[nn.Module], world: World) -> type[nn.Module]:
    """Return a subclass, of the same name, that normalises over all processes in training."""

    @wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return kind.forward(self, *args, **kwargs)
        with _OverAll(world):
            return kind.forward(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


class _OverAll(TorchFunctionMode):
    """Replaces F.batch_norm while a module runs."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            given = dict(zip(ARGUMENTS, args, strict=False)) | (kwargs or {})
            if given.pop("training", False):
                return batch_norm(given.pop("input"), self.world, **given)
        return func(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    world: World,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the images of all processes and update the running statistics.

    Raises:
        ValueError: if there is only one value per channel over all processes, as torch does.
    """
    num = world.size * x.numel() // x.shape[1]
    if num == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {x.shape}"
        )
    count, mean, var = _statistics(x.detach(), world)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = var * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    normalised: Tensor = _Normalise.apply(world, x, weight, bias, count, mean, var, eps)
    return normalised


def _statistics(x: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of values per channel over all processes, their mean and variance.

    The variance comes from deviations from each process's own mean: the difference of two large
    sums would lose digits.
    """
    channels = x.shape[1]
    var, mean = torch.var_mean(_exact(x), _without_channels(x), correction=0)
    own = torch.cat([mean, var, mean.new_full((1,), x.numel() / channels)])
    of_all = own.new_zeros(world.size, len(own))
    of_all[world.rank] = own
    world.add_up(of_all)  # a gather, which gloo does not have on a GPU
    means, variances, counts = of_all.split([channels, channels, 1], 1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    var = ((variances + (means - mean) ** 2) * counts).sum(0) / count
    return count, mean, var


def _exact(x: Tensor) -> Tensor:
    """Return half-precision numbers in fp32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _without_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


class _Normalise(torch.autograd.Function):
    """Normalise with statistics to which all processes contributed."""

    @staticmethod
    def forward(
        ctx: Any,
        world: World,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.world = world
        ctx.save_for_backward(x, weight, count, mean, (var + eps).rsqrt())
        return torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight, count, mean, inverse_std = ctx.saved_tensors
        shape = [1, -1, *(1,) * (x.ndim - 2)]
        axes = _without_channels(x)
        dy = _exact(grad)
        normalised = (_exact(x) - mean.view(shape)) * inverse_std.view(shape)
        sums = torch.stack([dy.sum(axes), (dy * normalised).sum(axes)])
        grad_bias, grad_weight = sums.clone().unbind()  # of this process; added up with all others
        of_all = ctx.world.add_up(sums) / count
        scale = inverse_std if weight is None else inverse_std * weight
        dx = dy - of_all[0].view(shape) - normalised * of_all[1].view(shape)
        dx = (dx * scale.view(shape)).to(x.dtype)
        needs = ctx.needs_input_grad
        return (
            *(None, dx if needs[1] else None),
            None if weight is None or not needs[2] else grad_weight.to(weight.dtype),
            grad_bias if needs[3] else None,
            *(None, None, None, None),
        )
