"""What a case runs on and how: device, precision, deterministic algorithms."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from bench.errors import UserError
from bench.machine.numerics import Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device called `name`: auto, cpu, cuda, cuda:1, mps.

    Raises:
        UserError: if there is no such device, or `auto` sees an NVIDIA GPU that torch cannot use.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if _has_nvidia_gpu():
            raise UserError(
                f"An NVIDIA GPU is visible, but torch {torch.__version__} cannot use it. Install "
                "a torch build that matches its driver, or use --device cpu."
            )
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu" and device.index:
        device = torch.device("meta")
    known = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if not known.get(device.type):
        available = ", ".join(kind for kind, is_available in known.items() if is_available)
        raise UserError(f"No device {name!r}; this machine has {available} (auto picks one).")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"No device {name!r}; GPUs on this machine: {torch.cuda.device_count()}.")
    return device


def _has_nvidia_gpu() -> bool:
    import pynvml

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        pynvml.nvmlInit()
        return bool(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return False


def pick_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision to run in.

    Raises:
        UserError: if the device does not support it.
    """
    # Older GPUs only emulate bf16; is_bf16_supported is true for them too.
    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    match asked:
        case "auto":
            return "bf16" if ampere else "fp32"
        case "fp32":
            return "fp32"
        case "bf16" if ampere or device.type == "cpu":
            return "bf16"
        case "tf32" if ampere:
            return "tf32"
        case "fp16" if device.type == "cuda":
            return "fp16"
    raise UserError(f"Precision {asked!r} is not supported on {device}; use auto or fp32.")


def set_precision(precision: Precision) -> None:
    """Turn TF32 on or off for matrix products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the autocast context for forward passes."""
    return torch.autocast(
        device.type, DTYPES.get(precision, torch.float32), enabled=precision in DTYPES
    )


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Use only deterministic algorithms while the body runs, if asked to.

    Raises:
        UserError: naming an operation that has no deterministic implementation.
    """
    if not deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except (RuntimeError, UserError) as error:
        operation, known, _ = str(error).partition(" does not have a deterministic implementation")
        if not known:
            raise
        raise UserError(
            f"deterministic: {operation.rpartition(' ')[2]} has no deterministic implementation "
            "in torch; leave `deterministic` out, or choose another network or loss."
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the GPU and its software for a record; empty if the device is not CUDA."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
