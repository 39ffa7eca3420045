"""Where the time of a case goes."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

T = TypeVar("T")
Name = Literal["start", "training", "validation", "data_wait"]
NAMES: tuple[Name, ...] = ("start", "training", "validation", "data_wait")


class Clock:
    """Four stopwatches, in seconds.

    start: from the beginning of a case to its first step: data, network, weights.
    training: steps and the waiting for their data, synchronised at both ends.
    validation: scoring between epochs.
    data_wait: the part of training that waited for data.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds = dict.fromkeys(NAMES, 0.0)

    @contextmanager
    def timing(self, name: Name) -> Iterator[None]:
        """Add the time that the body takes, however it ends."""
        begun = self.now()
        try:
            yield
        finally:
            self.seconds[name] += self.now() - begun

    def reset(self, *names: Name) -> None:
        """Begin again at 0."""
        self.seconds |= dict.fromkeys(names, 0.0)

    def waiting(self, batches: Iterable[T]) -> Generator[T, None, None]:
        """Pass batches on, adding the time until each comes."""
        with self.timing("data_wait"):
            source = iter(batches)
        while True:
            with self.timing("data_wait"):
                batch = next(source, None)
            if batch is None:
                return
            yield batch
