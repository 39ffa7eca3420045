"""Memory: peaks, running out of it, giving it back."""

import gc
import os
from contextlib import suppress
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        CLEAR_REFS.write_text("5")  # resets the high-water mark of this process on Linux


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the peak since the reset, in MiB: of the GPU's allocator, else of this process.

    None on the CPU of systems that cannot reset it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return process_memory_mib() if os.access(CLEAR_REFS, os.W_OK) else None


def process_memory_mib(pid: int | str = "self") -> float | None:
    """Return the most memory that a process has had since its reset, in MiB; None off Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    marks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return marks[0] if marks else None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether the device, or the machine, had no more memory to give."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("DefaultCPUAllocator", "ALLOC_FAILED", "out of memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def release_memory(device: torch.device) -> None:
    """Give back what a failed attempt left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
