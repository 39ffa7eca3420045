"""How batches are fetched. Does not import torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bench.text import plural


@dataclass(frozen=True)
class Loading:
    """How batches are fetched.

    num_workers: processes that read; with 0 the training process reads.
    prefetch: batches that each worker prepares ahead.
    pin_memory: copy batches into memory that a GPU reads directly.
    images_per_s: how fast images were read when this was chosen; None if not measured.
    """

    num_workers: int = 0
    prefetch: int = 2
    pin_memory: bool = False
    images_per_s: float | None = None

    @property
    def rate(self) -> float:
        """Images per second; 0 if not measured."""
        return self.images_per_s or 0.0

    @property
    def description(self) -> str:
        """These settings in words."""
        if self.num_workers == 0:
            text = "read by the training process"
        else:
            text = f"read by {plural(self.num_workers, 'worker')}, {self.prefetch} batches ahead"
        pinned = ", pinned" if self.pin_memory else ""
        return f"{text}{pinned}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a record."""
        return asdict(self)


def read_loading(stored: Mapping[str, Any]) -> Loading:
    """Read a record's loading settings; unknown keys from other versions are ignored."""
    known = {field.name for field in fields(Loading)}
    return Loading(**{key: value for key, value in stored.items() if key in known})
