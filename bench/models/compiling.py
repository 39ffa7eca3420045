"""Compiling a model's forward pass with torch.compile, before it is timed."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.machine.numerics import CompileMode
from bench.machine.random_state import random_states, set_random_states

BACKEND = "inductor"
RUNS = 3  # a CUDA graph is recorded in the second run and replayed from the third on
Forward = Callable[[Tensor], Any]


def compiled(forward: Forward, mode: CompileMode) -> Forward:
    """Return a compiled form of a function; the module that it belongs to stays as it is."""
    options: dict[str, Any] = {"mode": mode} if BACKEND == "inductor" else {}
    return torch.compile(forward, fullgraph=True, dynamic=False, backend=BACKEND, **options)


@contextmanager
def named_break(name: str) -> Iterator[None]:
    """Turn what stops a compilation into a message.

    Raises:
        UserError: with the reason and the line of the network.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    try:
        yield
    except TorchDynamoException as error:
        text = str(error)
        reason = text.strip().partition("\n")[0].removesuffix(".")
        places = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)', text)
        where = ""
        if places:
            file, line, code = places[-1]
            where = f" ({Path(file).name}:{line}: {code.strip()})"
        raise UserError(
            f"compile: {name} cannot be compiled as one graph: {reason}{where}. Change the "
            "network, or leave `compile` out."
        ) from error


@contextmanager
def left_as_it_was(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore gradients, buffers (such as running statistics) and random states afterwards."""
    kept = [(buffer, buffer.clone()) for buffer in net.buffers()]
    states = random_states(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        for parameter in net.parameters():
            parameter.grad = None
        set_random_states(states, device)
