"""Where and how a case runs: device, precision, threads, random states."""

import gc
import os
import random
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from bench.clock import Clock
from bench.errors import UserError
from bench.recipe import Recipe

T = TypeVar("T")
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Refused(UserError):
    """A case cannot go on here as it began elsewhere; that is no failure of the case."""


@dataclass(frozen=True)
class Numerics:
    """What actually ran; seeds are pooled only where these are equal."""

    device: str
    precision: Precision
    augmentation: str
    micro_batch: int
    threads: int
    world_size: int = 1
    compiled: bool = False
    deterministic: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a record."""
        return asdict(self)


def pick_device(name: str) -> torch.device:
    """Return the device of a name: auto, cpu, cuda, cuda:1, mps.

    Raises:
        UserError: where it is not there, or where `auto` sees an NVIDIA GPU that torch cannot use.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if _has_nvidia_gpu():
            raise UserError(
                f"An NVIDIA GPU is visible, but torch {torch.__version__} cannot use it. Install "
                "a torch build for its driver, or give --device cpu."
            )
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    known = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if not known.get(device.type):
        there = ", ".join(kind for kind, is_there in known.items() if is_there)
        raise UserError(f"No device {name!r}; this machine has {there} (or give auto).")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"No device {name!r}; there are {torch.cuda.device_count()} GPUs.")
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
    """Return the precision that runs.

    Raises:
        UserError: where the device has none of the one asked for.
    """
    # Older GPUs only emulate bf16, which is_bf16_supported counts as having it.
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
    raise UserError(f"{device} has no training in precision {asked!r}; give auto or fp32.")


def choose_numerics(
    recipe: Recipe,
    device: torch.device,
    augmentation: str,
    micro_batch: int,
    begun: Numerics | None,
) -> Numerics:
    """Return what a case runs with; one that was begun keeps what it began with.

    Raises:
        Refused: where this machine cannot do as it began.
    """
    if begun is not None:
        torch.set_num_threads(begun.threads)
    chosen = Numerics(
        device=device.type,
        precision=pick_precision(recipe.precision, device),
        augmentation=augmentation if recipe.augment else "none",
        micro_batch=begun.micro_batch if begun else micro_batch,
        deterministic=recipe.deterministic,
        threads=torch.get_num_threads(),
    )
    if begun is not None and begun != chosen:
        old, new = begun.as_dict(), chosen.as_dict()
        differ = ", ".join(f"{k} {old[k]}, here {new[k]}" for k in old if old[k] != new[k])
        raise Refused(
            f"It was begun with another {differ}. Go on as it began, or remove it (bench rm)."
        )
    return chosen


def set_precision(precision: Precision) -> None:
    """Let matrix products and convolutions use TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context that forward passes run in."""
    return torch.autocast(
        device.type, DTYPES.get(precision, torch.float32), enabled=precision in DTYPES
    )


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Hold torch to deterministic algorithms while the body runs, where that is asked for.

    Raises:
        UserError: naming an operation that has none.
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
            f"deterministic: {operation.rpartition(' ')[2]} has no deterministic form in torch; "
            "leave `deterministic` out, or choose another network or loss."
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)


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


def synchronize(device: torch.device) -> None:
    """Wait for what was sent to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def idle_between(
    batches: Iterable[T], device: torch.device, clock: Clock
) -> Generator[T, None, None]:
    """Pass batches on, adding the time that the device waits for them to the clock's data_wait.

    A GPU works on while the next batch is fetched: it waits from the end of a step's work to the
    arrival of the next batch. Close it when the device is synchronised.
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
    """Note when the GPU will have done all that it was given so far."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name the GPU and its software for a record; nothing for the CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python, for networks that draw from any of them."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return every random state of a case in types that torch.load takes with weights_only."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": _device_state(device),
        "numpy": (name, torch.from_numpy(np.asarray(keys)), position, has_gauss, cached),
        "python": random.getstate(),
    }


def _device_state(device: torch.device) -> torch.Tensor | None:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go on from `random_states`."""
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["device"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
