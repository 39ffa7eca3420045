"""The gradients of a step over all processes that train together.

There is no DistributedDataParallel. A step's loss is divided by the weights of the whole step, over
all processes, before it is differentiated; so gradients have only to be added up, once, after all
micro-batches, and the keys of the state dict stay as they are.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from bench.machine.world import World

BUCKET = 25_000_000  # numbers that are added up in one message


class Gradients:
    """Adds the gradients of all processes up; all processes have the same parameters.

    Which parameters get gradients at all is asked once: they must not wait for each other's answer
    in every step.
    """

    def __init__(self, world: World, parameters: Sequence[nn.Parameter]) -> None:
        self.world = world
        self.parameters = [p for p in parameters if p.requires_grad]
        self.used: list[nn.Parameter] | None = None

    def add_up(self) -> None:
        """Replace each gradient by the sum over all processes.

        Raises:
            RuntimeError: if a parameter gets its first gradient after the first step.
        """
        if self.world.is_alone:
            return
        if self.used is None:
            reached = self.world.gather([p.grad is not None for p in self.parameters])
            by_any = [any(flags) for flags in zip(*reached, strict=True)]
            self.used = [p for p, is_used in zip(self.parameters, by_any, strict=True) if is_used]
        known = set(map(id, self.used))
        if any(p.grad is not None and id(p) not in known for p in self.parameters):
            raise RuntimeError("A parameter got its first gradient after the first step.")
        grads = []
        for parameter in self.used:
            if parameter.grad is None:  # another process used it in this step
                parameter.grad = torch.zeros_like(parameter)
            grads.append(parameter.grad)
        for bucket in _buckets(grads):
            flat = self.world.add_up(torch.cat([grad.reshape(-1) for grad in bucket]))
            parts = flat.split([grad.numel() for grad in bucket])
            for grad, part in zip(bucket, parts, strict=True):
                grad.copy_(part.view(grad.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one type together, up to a number of elements."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        for tensor in (one for one in tensors if one.dtype == dtype):
            if bucket and sum(map(Tensor.numel, bucket)) + tensor.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket
