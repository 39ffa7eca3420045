"""Trying a case's recipe before it runs: its loss and its precision."""

import numpy as np
import torch

from bench.datasets.class_weights import ClassCounts
from bench.machine.device import pick_device, pick_precision
from bench.suite.case import Case
from bench.suite.recipe import Recipe
from bench.training.losses import Loss, build_loss, with_counted_weights


def check_recipe(case: Case, device_name: str) -> None:
    """Check that a case's loss can be built, and that the device has its precision.

    Raises:
        UserError: saying what does not work.
    """
    uncounted_loss(case.recipe, case.dataset.labels.num_classes, torch.device("cpu"))
    pick_precision(case.recipe.precision, pick_device(device_name))


def uncounted_loss(recipe: Recipe, num_classes: int, device: torch.device) -> Loss:
    """Return the loss; class weights that need pixel counts are replaced by equal ones."""
    ones = np.ones(num_classes, np.int64)
    loss = with_counted_weights(recipe.loss, lambda: ClassCounts(ones, ones, ones))
    return build_loss(loss, num_classes, device, recipe.aux_weight)
