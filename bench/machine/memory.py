"""Memory: peak use, running out, releasing it."""

import ctypes
import gc
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

OUT_OF_MEMORY = re.compile(  # of torch, CUDA, cuDNN (8 and 9), and cuBLAS, which says it so
    r"DefaultCPUAllocator|out of memory|ALLOC(ATION)?_FAILED|calling `cublas(Lt)?Create"
    r"|Unable to find a valid cuDNN algorithm"
)
MALLOC_OPTIONS = {  # of glibc's malloc.h
    -4: 0,  # M_MMAP_MAX: large blocks are not mapped one by one
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: bytes free at the end before they are returned
    -2: 64 * 2**20,  # M_TOP_PAD: more bytes than needed at once
}
CLEAR_REFS = Path("/proc/self/clear_refs")


def keep_freed_memory() -> None:
    """Let this process keep the main memory that it frees, for the next step.

    Otherwise glibc returns each large tensor to the system and maps the next one anew, page by
    page, which takes up to a third of the time of a step on the CPU. Other libraries for memory
    ignore this.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option, value in MALLOC_OPTIONS.items():
            set_option(option, value)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # what earlier work left free does not count
        trim(0)
    with suppress(OSError):
        CLEAR_REFS.write_bytes(b"5")  # resets the high-water mark of this process on Linux


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the peak since the last reset, in MiB: of the GPU's allocator, else of this process.

    None if the device is not CUDA and the system cannot reset the peak of a process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return process_memory_mib() if os.access(CLEAR_REFS, os.W_OK) else None


def process_memory_mib(pid: int | str = "self") -> float | None:
    """Return a process's peak memory since its last reset, in MiB; None if not on Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return None
    marks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return marks[0] if marks else None


def gpu_peak_memory_mib() -> float | None:
    """Return the peak of this process's tensors on its GPU since the last reset, in MiB."""
    if not torch.cuda.is_initialized():
        return None
    return torch.cuda.max_memory_allocated() / 2**20


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device or the machine ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))


def release_memory(device: torch.device) -> None:
    """Free the memory that a failed attempt left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
