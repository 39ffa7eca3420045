"""Where the time of a case goes."""

import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F

from bench.machine.device import plain_fp32

T = TypeVar("T")
Name = Literal["start", "compile", "training", "validation", "data_wait"]
NAMES: tuple[Name, ...] = ("start", "compile", "training", "validation", "data_wait")
REFERENCE_RUNS = 5
LAUNCHES = 200  # of small kernels, about as many as a pass of a small network
REFERENCE_SHAPES = {"cuda": (8, 64, 128, 128), "mps": (8, 64, 128, 128)}  # (N, C, H, W), fp32
REFERENCE_SHAPE_CPU = (1, 64, 64, 64)


class Clock:
    """Five stopwatches, in seconds.

    start: until the first step of a case: reading data, building the network, loading weights.
    compile: of torch.compile; it is in no other time.
    training: steps and waiting for their data; the device is synchronised at both ends.
    validation: scoring between epochs.
    data_wait: the part of training that waited for data.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds = dict.fromkeys(NAMES, 0.0)

    @contextmanager
    def timing(self, name: Name) -> Iterator[None]:
        """Add the time that the body takes, even if it raises."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[name] += self.now() - start

    def reset(self, *names: Name) -> None:
        """Set stopwatches back to 0."""
        self.seconds |= dict.fromkeys(names, 0.0)

    def waiting(self, batches: Iterable[T]) -> Generator[T, None, None]:
        """Yield batches, adding the time spent waiting for each to data_wait."""
        with self.timing("data_wait"):
            source = iter(batches)
        while True:
            with self.timing("data_wait"):
                batch = next(source, None)
            if batch is None:
                return
            yield batch


@torch.inference_mode()
def reference_s(device: torch.device) -> float:
    """Return the median time of a 3x3 convolution of 64 channels in fp32, in seconds.

    On a GPU, the time to launch some small kernels is added: it is what small networks wait for.
    Times of two runs are compared as multiples of it, so that a busy machine does not look like a
    slower network. The measurement takes milliseconds and draws no random numbers.
    """
    image = torch.ones(REFERENCE_SHAPES.get(device.type, REFERENCE_SHAPE_CPU), device=device)
    kernel = torch.ones(image.shape[1], image.shape[1], 3, 3, device=device)

    def seconds() -> float:
        synchronize(device)
        start = time.perf_counter()
        F.conv2d(image, kernel, padding=1)
        for _ in range(LAUNCHES if device.type == "cuda" else 0):
            small.add_(1)
        synchronize(device)
        return time.perf_counter() - start

    small = torch.zeros(1, device=device)
    with plain_fp32():
        seconds()  # warm-up
        return statistics.median(seconds() for _ in range(REFERENCE_RUNS))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def idle_between(
    batches: Iterable[T], device: torch.device, clock: Clock
) -> Generator[T, None, None]:
    """Yield batches, adding the time that the device waits for them to the clock's data_wait.

    A GPU keeps working while the next batch is fetched, so it waits only from the end of a step's
    work until the next batch arrives. Close the generator when the device is synchronised.
    """
    if device.type != "cuda":
        yield from clock.waiting(batches)
        return
    waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    try:
        free = _mark()
        for batch in batches:
            waits.append((free, _mark()))
            yield batch
            free = _mark()
    finally:
        for _, here in waits[-1:]:
            here.synchronize()
        clock.seconds["data_wait"] += sum(a.elapsed_time(b) for a, b in waits) / 1e3


def _mark() -> torch.cuda.Event:
    """Record an event that marks when the GPU has finished the work queued so far."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
