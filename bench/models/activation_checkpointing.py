"""Activation checkpointing: recompute activations in backward instead of keeping them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from bench.errors import UserError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recompute_activations(net: nn.Module) -> int:
    """Make the blocks of a network keep only their inputs in training and recompute the rest.

    Loss, gradients and running statistics do not change (Chen et al. 2016, arXiv 1604.06174). A
    block is the innermost module that is made of layers; containers do not count. If the blocks
    inside a module have at most half of its layers, the module itself is the block: checkpointing
    only a squeeze-and-excitation would still keep all large activations. If a network has no
    blocks, its outermost nn.Sequentials are used.

    Returns:
        The number of blocks.

    Raises:
        UserError: if the network has no blocks; or later, in a forward pass, if a block changes
            its input or buffers, so that running it again would give another result.
    """
    blocks = _unique(block for child in net.children() for block in _blocks(child))
    if not blocks:
        blocks = _unique(block for child in net.children() for block in _sequentials(child))
    if not blocks:
        raise UserError(
            "memory: checkpoint finds no block to recompute in this network; leave `memory` out "
            "of the recipe."
        )
    kinds = {type(block): _recomputed(type(block)) for block in blocks}
    for block in blocks:
        # Not a forward on the instance: that would be a reference cycle, which keeps a finished
        # case's network in memory, and a deep copy would still run the original.
        block.__class__ = kinds[type(block)]
    return len(blocks)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """List the blocks of a module, which may be the module itself."""
    inner = _unique(block for child in module.children() for block in _blocks(child))
    if isinstance(module, CONTAINERS) or not _num_layers(module.children()):
        return inner
    return inner if 2 * _num_layers(inner) > _num_layers([module]) else [module]


def _sequentials(module: nn.Module) -> list[nn.Module]:
    """List the outermost nn.Sequentials of a module, which may be the module itself."""
    if isinstance(module, nn.Sequential):
        return [module] if _num_layers([module]) else []
    return [found for child in module.children() for found in _sequentials(child)]


def _unique(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(modules))


def _num_layers(modules: Iterable[nn.Module]) -> int:
    """Count the modules, at any depth, that hold parameters directly."""
    layers = {layer for module in modules for layer in module.modules()}
    return sum(any(True for _ in layer.parameters(recurse=False)) for layer in layers)


def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass, of the same name, whose forward is recomputed in the backward pass."""

    @wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        learns = any(x.requires_grad for x in chain(inputs, self.parameters()))
        if not (self.training and torch.is_grad_enabled() and learns):
            return kind.forward(self, *args, **kwargs)
        first = [(args, kwargs)]

        def run(*leaves: Any) -> Any:
            if first:  # with the caller's own lists and dicts, to which the block may add
                args, kwargs = first.pop()
                return kind.forward(self, *args, **kwargs)
            args, kwargs = tree_unflatten(leaves, spec)
            with _statistics_left_alone(self):
                return kind.forward(self, *args, **kwargs)

        state = _state(self)
        versions = _versions(inputs), _versions(state)
        # Flattened: checkpoint looks only at positional arguments, for devices whose random state
        # it must keep and for later changes in place.
        out = checkpoint(run, *leaves, use_reentrant=False)
        for what, tensors, before in zip(
            ("input", "buffers"), (inputs, state), versions, strict=True
        ):
            if _versions(tensors) != before:
                raise UserError(
                    f"{kind.__name__} changes its {what} in place, so that running it again gives "
                    "another result; memory: checkpoint cannot be used with it. Change the module, "
                    "or leave `memory` out of the recipe."
                )
        return out

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _state(block: nn.Module) -> list[Tensor]:
    """List the buffers that `_statistics_left_alone` does not protect."""
    modules = (module for module in block.modules() if not isinstance(module, _NormBase))
    return [buffer for module in modules for buffer in module.buffers(recurse=False)]


def _versions(tensors: Iterable[Tensor]) -> list[int]:
    return [x._version for x in tensors]


@contextmanager
def _statistics_left_alone(block: nn.Module) -> Iterator[None]:
    """Let normalisation layers update copies of their running statistics.

    With track_running_stats=False instead, BatchNorm would save two tensors fewer than in its
    first run, which torch's checkpoint takes for a different computation.
    """
    norms = [m for m in block.modules() if isinstance(m, _NormBase)]
    kept = [(norm, *named) for norm in norms for named in norm.named_buffers(recurse=False)]
    try:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)
