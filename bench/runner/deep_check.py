"""Trying one training step of each case."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from bench.errors import Fault, UserError
from bench.loading.images import TrainImages, limited
from bench.machine.device import algorithms, autocast, pick_device, pick_precision
from bench.models.activation_checkpointing import recompute_activations
from bench.models.segmenter import build_model
from bench.runner.recipe_check import uncounted_loss
from bench.suite.case import Case, open_case_dataset
from bench.suite.load import SuiteFile
from bench.suite.suite import Suite
from bench.text import first_line
from bench.training.losses import mean


def check_deep(
    file: SuiteFile, cases: Iterable[Case], roots: Mapping[str, Path], device_name: str
) -> Iterator[tuple[Case, float]]:
    """Load every model and run one forward and backward pass at batch size 2; yield the losses.

    Raises:
        UserError: with every case that fails, and its line.
    """
    device = pick_device(device_name)
    faults = []
    for case in cases:
        try:
            yield case, _one_step(file.suite, case, roots, device)
        except (UserError, RuntimeError, ValueError, TypeError) as error:
            faults.append(Fault(("models", case.model_name), f"{case.name}: {first_line(error)}"))
    if faults:
        raise file.error(faults)


def _one_step(suite: Suite, case: Case, roots: Mapping[str, Path], device: torch.device) -> float:
    dataset = open_case_dataset(case, roots)
    samples = limited(dataset.samples(case.train_split), 2)
    train = TrainImages(dataset, samples, case.recipe, case.seed)
    items = [train.read(index) for index in range(len(samples))]
    image = torch.stack([item[0] for item in items]).to(device)
    num_classes = case.dataset.labels.num_classes
    model, _ = build_model(case.model, num_classes)
    if case.recipe.freeze_encoder:
        model.freeze_encoder()
    if case.recipe.memory == "checkpoint":
        recompute_activations(model.net)
    target = model.geometry.reduced(torch.stack([item[1] for item in items])).to(device).long()
    loss_fn = uncounted_loss(case.recipe, num_classes, device)
    with algorithms(case.recipe.deterministic):
        with autocast(device, pick_precision(case.recipe.precision, device)):
            logits = model.to(device).train()(image)
        loss = mean(loss_fn.totals(logits, target), loss_fn.weights(target))
        loss.backward()
    return float(loss.detach())
