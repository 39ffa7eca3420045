"""Trying a case's data before it runs: its splits, and some images of each."""

from collections.abc import Mapping
from pathlib import Path

from bench.errors import UserError
from bench.loading.images import EvalImages, TrainImages, limited, require_batch
from bench.suite.case import Case, open_case_dataset
from bench.suite.evaluation import Evaluation
from bench.suite.suite import Suite


def check_batch(case: Case, roots: Mapping[str, Path]) -> tuple[int, int]:
    """Return the (H, W) of training images, after trying the first and the last."""
    dataset, recipe = open_case_dataset(case, roots), case.recipe
    train = limited(dataset.samples(case.train_split), case.limit)
    if recipe.epochs != 0:
        require_batch(len(train), recipe.batch_size)
    images = TrainImages(dataset, train, recipe, case.seed)
    first, last = images.read(0), images.read(len(train) - 1)
    if first[0].shape != last[0].shape and recipe.micro_batch > 1:
        (h, w), (last_h, last_w) = first[0].shape[1:], last[0].shape[1:]
        raise UserError(
            f"Training images differ in size ({h}x{w} and {last_h}x{last_w}): give size, or crop "
            "to one size in augment."
        )
    return first[0].shape[1], first[0].shape[2]


def check_scored(suite: Suite, case: Case, roots: Mapping[str, Path]) -> None:
    """Try the first and the last image of each evaluation on other splits than the training's."""
    dataset = open_case_dataset(case, roots)
    for evaluation in (Evaluation(split=suite.splits.select), *suite.scored.values()):
        if evaluation.split == case.train_split:
            continue
        scored = limited(dataset.samples(evaluation.split), case.limit)
        images = EvalImages(dataset, scored, evaluation, case.recipe)
        for index in {0, len(scored) - 1}:
            images.read(index)
