"""What was counted of a network. Does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Complexity:
    """Counts that do not depend on the machine.

    num_unreached: trainable parameters that get no gradient from the logits of any head.
    gmacs: multiply-accumulates / 10^9 of one image in eval mode at `size` (H, W), padded as the
        network needs.
    train_gflops: operations / 10^9 of one image in training, forward and backward, without those
        that memory: checkpoint repeats; None in old records.
    shapes: the start of a SHA-256 over the names and shapes of the tensors in the state dict.
    """

    num_params: int
    num_trainable: int
    num_unreached: int
    model_bytes: int
    gmacs: float
    size: tuple[int, int]
    shapes: str
    train_gflops: float | None = None


def read_complexity(stored: Mapping[str, Any]) -> Complexity | None:
    """Read the counts of a record; None if an older version did not write them all."""
    known = {field.name: stored.get(field.name) for field in fields(Complexity)}
    if None in [value for name, value in known.items() if name != "train_gflops"]:
        return None
    counts: dict[str, Any] = known | {"size": tuple(stored["size"])}
    return Complexity(**counts)
