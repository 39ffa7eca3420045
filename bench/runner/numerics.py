"""The numerics that a case runs with."""

from dataclasses import replace

import torch

from bench.errors import UserError
from bench.machine.device import pick_precision
from bench.machine.numerics import MemoryFormat, Numerics, Precision
from bench.suite.recipe import Recipe


class Refused(UserError):
    """A case cannot continue here with its checkpoint's numerics; no failure is recorded."""


def choose_numerics(
    recipe: Recipe,
    device: torch.device,
    augmentation: str,
    micro_batch: int,
    begun: Numerics | None,
    takes_channels_last: bool = True,
    world_size: int = 1,
) -> Numerics:
    """Return the numerics of a case; a case with a checkpoint keeps those of the checkpoint.

    Sets torch's number of threads to that of the checkpoint.

    Args:
        begun: numerics of the checkpoint, if there is one; they decide what `auto` means.
        takes_channels_last: whether the network runs in that memory format.
        world_size: processes that train together.

    Raises:
        Refused: if the checkpoint was made with other numerics.
        UserError: if the device does not support the recipe's precision.
    """
    if begun is not None and begun.threads is not None:
        torch.set_num_threads(begun.threads)
    is_cuda, sizes_vary = device.type == "cuda", recipe.size is None and recipe.micro_batch == 1
    chosen = Numerics(
        device=device.type,
        precision=_precision(recipe, device, begun),
        augmentation=augmentation if recipe.augment else "none",
        micro_batch=begun.micro_batch if begun else micro_batch,
        memory_format=_memory_format(recipe, device, begun, takes_channels_last),
        compile=recipe.compile or None,
        deterministic=recipe.deterministic,
        threads=torch.get_num_threads(),
        world_size=world_size,
        cudnn_benchmark=(
            begun.cudnn_benchmark
            if begun
            else is_cuda and not recipe.deterministic and not sizes_vary
        ),
        fused_optimizer=begun.fused_optimizer if begun else is_cuda,
    )
    if begun is not None and begun != chosen:
        old, new = begun.as_dict(), chosen.as_dict()
        differ = [key for key in old if old[key] != new[key]]
        made, used = (", ".join(f"{key} {of[key]}" for key in differ) for of in (old, new))
        how = f" (--gpus-per-case {begun.world_size})" if "world_size" in differ else ""
        raise Refused(
            f"The checkpoint was made with {made}; this run uses {used}. Run it as before{how}, or "
            "remove the case (bench rm) to start again."
        )
    return chosen


def scoring_numerics(trained: Numerics, device: torch.device) -> Numerics:
    """Return the numerics with which a finished case is scored later: those of its training.

    Raises:
        Refused: if this device cannot compute in them.
    """
    try:
        precision = pick_precision(trained.precision, device)
    except UserError as error:
        raise Refused(f"The case was trained in {trained.precision}: {error}") from error
    search = trained.cudnn_benchmark and device.type == "cuda"
    return replace(
        trained,
        device=device.type,
        precision=precision,
        threads=torch.get_num_threads(),
        world_size=1,
        cudnn_benchmark=search,
    )


def _precision(recipe: Recipe, device: torch.device, begun: Numerics | None) -> Precision:
    asked = begun.precision if begun and recipe.precision == "auto" else recipe.precision
    try:
        return pick_precision(asked, device)
    except UserError as error:
        if begun is None:
            raise
        raise Refused(f"The case began in {asked}: {error}") from error


def _memory_format(
    recipe: Recipe, device: torch.device, begun: Numerics | None, takes_channels_last: bool
) -> MemoryFormat:
    if recipe.memory_format != "auto":
        return recipe.memory_format
    if begun is not None:
        return begun.memory_format
    return "channels_last" if takes_channels_last and device.type != "mps" else "contiguous"
