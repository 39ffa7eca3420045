"""What a case runs on and how: device, precision, deterministic algorithms."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from bench.errors import UserError
from bench.machine.numerics import Numerics, Precision

WORKSPACE, WORKSPACE_SIZE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
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


def visible_gpus() -> list[str]:
    """List the GPUs, or their MIG slices, by their names in CUDA_VISIBLE_DEVICES.

    A process sees one MIG slice at most, so torch counts one.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else _mig_slices()
    if any(name.startswith("MIG-") for name in names):
        return names
    num = torch.cuda.device_count()
    return names[:num] if names else [str(number) for number in range(num)]


def _mig_slices() -> list[str]:
    """List the MIG slices of this machine; empty if no GPU is divided."""
    import pynvml

    slices = []
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
            for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
                with suppress(pynvml.NVMLError):  # places are not all used
                    one = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
                    slices.append(str(pynvml.nvmlDeviceGetUUID(one)))
    return slices


def pick_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision to run in.

    Raises:
        UserError: if the device does not support it.
    """
    # Older GPUs only emulate bf16; is_bf16_supported is true for them too.
    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    match asked:
        case "auto":
            return "bf16" if ampere or (device.type == "cpu" and cpu_computes_bf16()) else "fp32"
        case "fp32":
            return "fp32"
        case "bf16" if ampere or device.type == "cpu":
            return "bf16"
        case "tf32" if ampere:
            return "tf32"
        case "fp16" if device.type == "cuda":
            return "fp16"
    raise UserError(f"Precision {asked!r} is not supported on {device}; use auto or fp32.")


def cpu_computes_bf16() -> bool:
    """Whether this machine's CPU multiplies bf16 numbers itself (AVX512_BF16 or AMX)."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def set_precision(precision: Precision, *, search: bool = False) -> None:
    """Turn TF32 on or off, and cuDNN's search for the fastest convolution.

    Call it after a network is built: its code may have changed these settings. torch's older
    settings leave convolutions as they are if the newer ones were used; both are set, because
    torch refuses to tell the older ones if they differ.
    """
    is_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
    torch.backends.cuda.matmul.allow_tf32 = is_tf32
    torch.backends.cudnn.allow_tf32 = is_tf32
    for operation in _cuda_operations():
        operation.fp32_precision = "tf32" if is_tf32 else "ieee"
    for operation in _cpu_operations():
        operation.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = search


def as_it_runs(numerics: Numerics) -> Numerics:
    """Return numerics as torch's settings stand, which a network's code may have changed."""
    precision: Precision = numerics.precision
    if precision not in DTYPES:
        stand = {operation.fp32_precision for operation in _cuda_operations()}
        precision = "tf32" if "tf32" in stand else "fp32"
    return replace(numerics, precision=precision, cudnn_benchmark=torch.backends.cudnn.benchmark)


@contextmanager
def plain_fp32() -> Iterator[None]:
    """Compute in full fp32 on a GPU while the body runs, whatever precision is set."""
    operations = _cuda_operations()
    before = [operation.fp32_precision for operation in operations]
    try:
        for operation in operations:
            operation.fp32_precision = "ieee"
        yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision


@contextmanager
def searching(wanted: bool) -> Iterator[None]:
    """Turn cuDNN's search off while the body runs, unless it is on and wanted.

    It searches once for each size, which takes longer than it gains if sizes vary.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _cuda_operations() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn


def _cpu_operations() -> tuple[Any, ...]:
    onednn: Any = torch.backends.mkldnn
    return onednn.matmul, onednn.conv, onednn.rnn


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
    if torch.cuda.is_initialized() and WORKSPACE not in os.environ:
        raise UserError(
            f"deterministic: CUDA started without {WORKSPACE}; set it to {WORKSPACE_SIZE} before, "
            "or use --engine process."
        )
    os.environ.setdefault(WORKSPACE, WORKSPACE_SIZE)  # read when CUDA starts
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
