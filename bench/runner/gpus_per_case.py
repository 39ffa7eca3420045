"""What a case on several GPUs needs."""

import os
from collections.abc import Sequence
from dataclasses import replace

from bench.errors import UserError
from bench.runner.placing import Placing
from bench.suite.case import Case
from bench.text import plural


def require_several(cases: Sequence[Case], num: int) -> None:
    """Check that each case can be trained by `num` processes together.

    Raises:
        UserError: with what keeps the first case that cannot from it.
    """
    for case in cases:
        recipe, name = case.recipe, f"{case.name}: --gpus-per-case {num}"
        if recipe.epochs == 0:
            continue
        if recipe.micro_batch % num:
            accumulated = f", accumulate {recipe.accumulate}" if recipe.accumulate > 1 else ""
            raise UserError(
                f"{name} cannot divide {plural(recipe.micro_batch, 'image')} at once (batch_size "
                f"{recipe.batch_size}{accumulated}) into equal shares. Give a number of GPUs "
                "that divides them, or change the recipe."
            )
        if recipe.compile:
            raise UserError(f"{name} cannot be compiled; leave `compile` out of the recipe.")


def as_started(placing: Placing) -> Placing | None:
    """Return how cases are placed if torchrun started this: on as many GPUs as it has processes.

    The first process starts those of each case itself, one after another; for the others, which
    have nothing to do, the result is None. Without torchrun, nothing changes.

    Raises:
        UserError: if it started processes on several machines, or another number than was asked.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return placing
    size, here = (int(os.environ.get(n, "1")) for n in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if size != here:
        raise UserError(
            f"torchrun started {size} processes on several machines; a case uses the GPUs of one. "
            "Start bench on each machine instead (docs/clusters.md)."
        )
    if placing.gpus_per_case not in (1, size):
        raise UserError(
            f"torchrun started {size} processes, but --gpus-per-case is {placing.gpus_per_case}."
        )
    return None if int(os.environ.get("RANK", "0")) else replace(placing, gpus_per_case=size)
