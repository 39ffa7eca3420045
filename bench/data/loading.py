"""How batches are fetched: a choice that changes no number, only the time it takes."""

import os
from dataclasses import asdict, dataclass
from typing import Any


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Loading:
    """How batches are fetched.

    num_workers: processes that read; 0 reads in the process that trains.
    prefetch: batches that each of them prepares ahead.
    pin_memory: copy batches into memory that a GPU reads directly.
    images_per_s: how fast images came when this was chosen; None where nothing was measured.
    """

    num_workers: int = 0
    prefetch: int = 2
    pin_memory: bool = False
    images_per_s: float | None = None

    @property
    def rate(self) -> float:
        """Images per second; 0 where nothing was measured."""
        return self.images_per_s or 0.0

    @property
    def description(self) -> str:
        """Say it in words."""
        if self.num_workers == 0:
            text = "read by the process that trains"
        else:
            text = f"read by {self.num_workers} workers, {self.prefetch} batches ahead"
        pinned = ", pinned" if self.pin_memory else ""
        return f"{text}{pinned}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a record."""
        return asdict(self)
