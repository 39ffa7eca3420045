"""Which epoch's model is the result, and when training ends early."""

from bench.errors import UserError
from bench.models.segmenter import Segmenter
from bench.suite.columns import COLUMNS
from bench.suite.recipe import Recipe
from bench.training.checkpoint import Best, Progress


def is_done(progress: Progress, recipe: Recipe, num_epochs: int) -> bool:
    """Return whether the last epoch is done, or the recipe's patience has run out."""
    if len(progress.history) >= num_epochs:
        return True
    if recipe.patience is None or progress.best is None:
        return False
    last_scored = max(int(row["epoch"]) for row in progress.history if "validation_s" in row)
    return last_scored - progress.best.epoch >= recipe.patience


def note_best(
    progress: Progress, model: Segmenter, recipe: Recipe, epoch: int, score: float | None
) -> None:
    """Keep the epoch with the best score, and its weights if they are to be the result."""
    if not recipe.selects or score is None:
        return
    sign = -1 if COLUMNS[recipe.select_by].better == "lower" else 1
    if progress.best is not None and sign * score <= sign * progress.best.score:
        return
    weights = None
    if recipe.checkpoint == "best":
        weights = {k: v.detach().cpu().clone() for k, v in model.net.state_dict().items()}
    progress.best = Best(epoch, score, weights)


def load_chosen(progress: Progress, model: Segmenter, recipe: Recipe, select: str) -> None:
    """Load the best epoch's weights into the model, if the recipe asks for them.

    Raises:
        UserError: if no epoch had a score to choose by.
    """
    if recipe.checkpoint == "last":
        return
    if progress.best is None:
        raise UserError(f"checkpoint: best: {recipe.select_by} on {select} never had a value.")
    assert progress.best.state is not None
    model.net.load_state_dict(progress.best.state)
