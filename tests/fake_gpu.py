"""A GPU without a GPU: fake CUDA tensors, on which a read-back or a mix of devices is an error."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.models.probing import _moved

CUDA = torch.device("cuda")


class ReadBack(RuntimeError):
    """Something waited for the GPU."""


class _Watch(TorchDispatchMode):
    """Refuses to copy from the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [one for one in args if isinstance(one, Tensor)]
        on_gpu = any(one.is_cuda for one in tensors)
        if name == "_local_scalar_dense" and on_gpu:
            raise ReadBack("a value was read")
        copies = name in ("_to_copy", "copy_", "_copy_from")
        if copies and on_gpu and isinstance(out, Tensor) and not out.is_cuda:
            raise ReadBack("a tensor was copied to the CPU")
        return out


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Run the body on fake tensors; "cuda" is a device that holds no values.

    torch's engine for gradients asks the CUDA driver for streams, even for fake tensors, so
    `backward` calls the same functions of the graph one by one.
    """
    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda.is_current_stream_capturing", return_value=False),
        mock.patch.object(Tensor, "backward", backward),
        warnings.catch_warnings(),
        FakeTensorMode(allow_non_fake_inputs=True),
        _Watch(),
    ):
        yield


def on_gpu(net: nn.Module) -> nn.Module:
    """Move a network to the fake GPU."""
    return _moved(net, CUDA)


def backward(loss: Tensor) -> None:
    """Give every leaf of a loss its gradient, function by function, the last ones first."""
    assert loss.grad_fn is not None
    waiting: dict[Any, int] = defaultdict(int)  # how many functions a function waits for
    todo, seen = [loss.grad_fn], {loss.grad_fn}
    while todo:
        for function, _ in todo.pop().next_functions:
            if function is not None:
                waiting[function] += 1
                if function not in seen:
                    seen.add(function)
                    todo.append(function)
    given: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    given[loss.grad_fn][0] = torch.ones_like(loss)
    ready = [loss.grad_fn]
    with torch.no_grad():
        while ready:
            function = ready.pop()
            gradients = given.pop(function, {})
            if hasattr(function, "variable"):
                _accumulate(function.variable, gradients.get(0))
                continue
            num = max([*gradients, 0]) + 1
            made = function(*(gradients.get(i) for i in range(num))) if gradients else None
            made = made if isinstance(made, tuple) else (made,) * len(function.next_functions)
            for (following, place), gradient in zip(function.next_functions, made, strict=True):
                if following is None:
                    continue
                if gradient is not None:
                    gradient = _fitted(gradient, following._input_metadata[place])
                    there = given[following].get(place)
                    given[following][place] = gradient if there is None else there + gradient
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)


def _fitted(gradient: Tensor, expected: Any) -> Tensor:
    """Sum over broadcast axes and convert, as torch does between two functions."""
    return gradient.sum_to_size(tuple(expected.shape)).to(expected.dtype)


def _accumulate(weight: Tensor, gradient: Tensor | None) -> None:
    if gradient is not None:
        weight.grad = gradient if weight.grad is None else weight.grad + gradient
