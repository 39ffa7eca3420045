"""The numerics that a case runs with."""

import torch

from bench.errors import UserError
from bench.machine.device import pick_precision
from bench.machine.numerics import Numerics
from bench.suite.recipe import Recipe


class Refused(UserError):
    """A case cannot continue here with its checkpoint's numerics; no failure is recorded."""


def choose_numerics(
    recipe: Recipe,
    device: torch.device,
    augmentation: str,
    micro_batch: int,
    begun: Numerics | None,
) -> Numerics:
    """Return the numerics of a case; a case with a checkpoint keeps those of the checkpoint.

    Sets torch's number of threads to that of the checkpoint.

    Args:
        begun: numerics of the checkpoint, if there is one.

    Raises:
        Refused: if the checkpoint was made with other numerics.
        UserError: if the device does not support the recipe's precision.
    """
    if begun is not None and begun.threads is not None:
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
        differ = [key for key in old if old[key] != new[key]]
        made, used = (", ".join(f"{key} {of[key]}" for key in differ) for of in (old, new))
        raise Refused(
            f"The checkpoint was made with {made}; this run uses {used}. Run it as before, or "
            "remove the case (bench rm) to start again."
        )
    return chosen
