"""What actually ran: device type, precision, micro-batch, threads. Does not import torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True)
class Numerics:
    """What actually ran; seeds are pooled only if these are equal.

    device: "cpu", "cuda" or "mps"; None if unknown.
    micro_batch: images per forward and backward pass, over all processes.
    threads: CPU threads of torch.
    world_size: processes that train together.
    compile: the mode of torch.compile; None: not compiled.
    cudnn_benchmark: whether cuDNN searches for the fastest convolution, which changes rounding.
    fused_optimizer: whether a step of the optimizer is one kernel, which may change rounding.
    """

    device: str | None = None
    precision: Precision = "fp32"
    augmentation: str = "none"
    micro_batch: int = 1
    threads: int | None = None
    world_size: int = 1
    memory_format: MemoryFormat = "contiguous"
    compile: CompileMode | None = None
    deterministic: bool = False
    cudnn_benchmark: bool = False
    fused_optimizer: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a record."""
        return asdict(self)


def read_numerics(stored: Mapping[str, Any]) -> Numerics:
    """Read the numerics of a record or checkpoint.

    Keys that an older version did not write take their defaults. Unknown keys, written by a newer
    version, are ignored.
    """
    known = {field.name for field in fields(Numerics)}
    return Numerics(**{key: value for key, value in stored.items() if key in known})
