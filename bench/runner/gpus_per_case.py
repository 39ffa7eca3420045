"""What a case on several GPUs needs."""

import os
from collections.abc import Sequence

from bench.errors import UserError
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


def require_one_start() -> None:
    """Check that this is not one of several processes that torchrun started.

    Raises:
        UserError: if it is: each would run every case.
    """
    num = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and num != "1":
        raise UserError(
            f"torchrun started this {num} times. Start bench once, without torchrun, and give "
            f"--gpus-per-case {num}."
        )
