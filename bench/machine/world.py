"""The processes that train one case together, and how they tell each other numbers.

Only the first, of rank 0, writes anything. torch is imported once it is needed.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# The engine notices a hang by the heartbeat. One process may wait long for another, for example
# while that decodes images.
PATIENCE = timedelta(days=2)


LOST_CODE = 87  # the exit code of a process that lost another


class Lost(Exception):
    """Another process of this case has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class Place:
    """Which of a case's processes this is, and where they meet.

    store: a path on this machine where no file is yet.
    backend: nccl for tensors on GPUs of their own; gloo if they compute on CPUs or share a GPU.
    """

    rank: int
    size: int
    store: Path
    backend: Literal["gloo", "nccl"]

    @property
    def name(self) -> str:
        """Name the process in messages."""
        return rank_name(self.rank, self.size)


def rank_name(rank: int, size: int) -> str:
    """Name one of several processes of a case in messages."""
    return f"rank {rank} of {size}"


@dataclass(frozen=True)
class World:
    """The processes that train one case together; usually one, which then tells nobody anything.

    All processes must call a method in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether there is only one process."""
        return self.size == 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the case."""
        return self.rank == 0

    def add_up(self, tensor: "Tensor") -> "Tensor":
        """Add a contiguous tensor up over all processes, in place, and return it."""
        if not self.is_alone:
            import torch.distributed as dist

            with _or_lost():
                dist.all_reduce(tensor)
        return tensor

    def copy_first(self, tensors: Sequence["Tensor"]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.is_alone:
            return
        import torch.distributed as dist

        for tensor in tensors:
            same = tensor.detach().contiguous()
            with _or_lost():
                dist.broadcast(same, 0)
            tensor.detach().copy_(same)

    def told(self, value: bool) -> bool:
        """Return the value that the first process gives."""
        if self.is_alone:
            return value
        import torch
        import torch.distributed as dist

        said = torch.tensor([value])
        with _or_lost():
            dist.broadcast(said, 0)
        return bool(said)

    def from_first(self, value: T) -> T:
        """Return the value, of any type, that the first process gives."""
        return value if self.is_alone else self.gather(value)[0]

    def gather(self, value: T) -> list[T]:
        """Return the values, of any type, that the processes give, in the order of their ranks."""
        if self.is_alone:
            return [value]
        import torch
        import torch.distributed as dist

        own = io.BytesIO()
        torch.save(value, own)  # pickle cannot read some tensors again, such as uint32
        texts: list[Any] = [None] * self.size
        with _or_lost():
            dist.all_gather_object(texts, own.getvalue())
        return [torch.load(io.BytesIO(text), weights_only=False) for text in texts]

    def first(self, make: Callable[[], T]) -> T:
        """Call a function in the first process, and in the others once it is done there."""
        if not self.writes:
            self.told(True)
        made = make()
        if self.writes:
            self.told(True)
        return made

    def places(self, batch_size: int, micro_batch: int) -> list[int]:
        """List the places in a batch of the images that this process reads.

        They are a share of each micro-batch, so that the processes together pass the same images
        through the network at once as one process does.
        """
        share = micro_batch // self.size
        starts = range(self.rank * share, batch_size, micro_batch)
        return [place for start in starts for place in range(start, start + share)]

    def share(self, num: int) -> range:
        """Return the indices, of 0..num-1, that are this process's share."""
        return range(self.rank, num, self.size)


ALONE = World()


@contextmanager
def _or_lost() -> Iterator[None]:
    """Tell the failure of a message from other errors.

    Raises:
        Lost: if another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        from bench.machine.memory import is_out_of_memory

        if is_out_of_memory(error):
            raise
        raise Lost(str(error)) from error


def join(place: Place) -> World:
    """Wait for the other processes of a case, and return the world of all.

    Raises:
        Lost: if another process has ended.
    """
    import torch.distributed as dist

    if sys.platform == "linux":  # all are on this machine, whose name may have no address
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with _or_lost():
        dist.init_process_group(
            "gloo" if place.backend == "gloo" else "cpu:gloo,cuda:nccl",
            init_method=f"file://{place.store}",
            rank=place.rank,
            world_size=place.size,
            timeout=PATIENCE,
        )
    return World(place.rank, place.size)
