"""Checking that a suite's cases can run, before any of them does."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bench.datasets.base import FileFault
from bench.datasets.class_weights import ClassCounts
from bench.errors import Fault, UserError
from bench.loading.images import TrainImages, limited
from bench.loading.transforms import build_transform
from bench.lookup import unknown
from bench.machine.device import algorithms, autocast, pick_device, pick_precision
from bench.models.activation_checkpointing import recompute_activations
from bench.models.complexity import Complexity
from bench.models.segmenter import (
    build_model,
)
from bench.runner.data_check import check_batch, check_scored, check_splits
from bench.runner.network_check import check_network
from bench.suite.case import Case, open_case_dataset
from bench.suite.load import SuiteFile, SuiteSource, load
from bench.suite.recipe import Recipe
from bench.suite.schema import Size, counted_size
from bench.suite.suite import Suite
from bench.text import first_line
from bench.training.losses import Loss, build_loss, mean, with_counted_weights

T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """What is known about a case before it runs.

    fingerprints: by split; empty if the data is missing.
    note: what a user should know about the network.
    """

    facts: Complexity
    fingerprints: Mapping[str, str]
    note: str | None = None


def load_checked(source: SuiteSource, settings: Iterable[str] = ()) -> SuiteFile:
    """Read a suite, and check its augmentations too."""
    return load(source, settings, check_transform=build_transform)


def check(
    file: SuiteFile,
    cases: Iterable[Case],
    roots: Mapping[str, Path],
    need_data: bool,
    device_name: str = "cpu",
) -> dict[str, Checked]:
    """Check each case's recipe, data, network and batch.

    Args:
        need_data: every split and weight file must exist; if False, what is missing is
            skipped, and networks are tried at the recipe's size or a default size.

    Returns:
        What is known about each case, by its name.

    Raises:
        UserError: with every fault and its line.
    """
    device = pick_device(device_name)
    tried = Tried(list(_root_faults(file.suite, roots)))
    found = {
        case.name: _check_case(file.suite, case, roots, need_data, device, tried) for case in cases
    }
    if tried.faults:
        raise file.error(tried.faults)
    return {name: checked for name, checked in found.items() if checked is not None}


@dataclass(frozen=True)
class Tried:
    """Runs a check that several cases share only once, and reports its fault once."""

    faults: list[Fault]
    found: dict[object, Any] = field(default_factory=dict)

    def once(
        self, key: object, path: tuple[str, ...], of_data: tuple[str, ...], work: Callable[[], T]
    ) -> T | None:
        """Return the result of `work`; None if it has a fault, which is then noted."""
        if key not in self.found:
            self.found[key] = None
            try:
                self.found[key] = work()
            except FileFault as error:
                self.faults.append(Fault(of_data, f"{error} (`bench data check` lists all.)"))
            except UserError as error:
                self.faults.append(Fault(path, str(error)))
        value: T | None = self.found[key]
        return value


def _check_case(
    suite: Suite,
    case: Case,
    roots: Mapping[str, Path],
    need_data: bool,
    device: torch.device,
    tried: Tried,
) -> Checked | None:
    """Run the checks of a case that no earlier case has run; None if its network has a fault."""
    recipe, of_data = case.recipe, ("datasets", case.dataset_name)
    of_recipe = ("recipes", case.recipe_name) if suite.recipes else ("recipe",)
    on_data = (case.dataset_name, recipe.model_dump_json(), case.recipe_name)
    tried.once(("recipe", on_data), of_recipe, of_data, partial(_check_recipe, case, device))
    look = partial(check_splits, suite, case, roots, need_data)
    splits = tried.once(("data", case.dataset_name), of_data, of_data, look)
    size: Size | None = None
    if splits:
        tried.once(("scored", on_data), of_data, of_data, partial(check_scored, suite, case, roots))
        size = tried.once(("batch", on_data), of_recipe, of_data, partial(check_batch, case, roots))
    if size is None:  # the network is checked anyway
        size = counted_size(recipe.size)
    of_network = (
        *(case.model_name, case.dataset_name, size, case.parent and case.parent.part),
        *(recipe.micro_batch, recipe.freeze_encoder, recipe.encoder_lr, recipe.deterministic),
    )
    of_model = ("models", case.model_name)
    try_network = partial(check_network, case, size, need_data, device)
    found = tried.once(("network", of_network), of_model, of_data, try_network)
    return None if found is None else Checked(found.facts, splits or {}, found.note)


def _root_faults(suite: Suite, roots: Mapping[str, Path]) -> Iterable[Fault]:
    known = {*suite.datasets, *(spec.name for spec in suite.datasets.values())}
    for name, folder in roots.items():
        if name not in known:
            yield Fault((), f"--root {name}=…: {unknown('dataset', name, known)}")
        elif not folder.is_dir():
            yield Fault((), f"--root {name}={folder}: there is no such folder.")


def _check_recipe(case: Case, device: torch.device) -> None:
    num_classes = case.dataset.labels.num_classes
    _uncounted_loss(case.recipe, num_classes, torch.device("cpu"))
    pick_precision(case.recipe.precision, device)


def _uncounted_loss(recipe: Recipe, num_classes: int, device: torch.device) -> Loss:
    """Return the loss; class weights that need pixel counts are replaced by equal ones."""
    ones = np.ones(num_classes, np.int64)
    loss = with_counted_weights(recipe.loss, lambda: ClassCounts(ones, ones, ones))
    return build_loss(loss, num_classes, device, recipe.aux_weight)


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
    loss_fn = _uncounted_loss(case.recipe, num_classes, device)
    with algorithms(case.recipe.deterministic):
        with autocast(device, pick_precision(case.recipe.precision, device)):
            logits = model.to(device).train()(image)
        loss = mean(loss_fn.totals(logits, target), loss_fn.weights(target))
        loss.backward()
    return float(loss.detach())


def remarks(
    suite: Suite,
    cases: Sequence[Case],
    roots: Mapping[str, Path],
    checked: Mapping[str, Checked],
) -> Iterator[str]:
    """Yield what a user should know of some cases' datasets and networks.

    These are files left out or used twice, and probabilities where logits are expected.
    """
    notes = {case.model_name: checked[case.name].note for case in cases}
    yield from (f"{model}: {note}" for model, note in notes.items() if note)
    for key in dict.fromkeys(case.dataset_name for case in cases):
        dataset = suite.datasets[key].open(key, roots)
        if not dataset.is_missing and (remark := dataset.remark()):
            yield f"{key}: {remark}"


def missing_files(suite: Suite, cases: Sequence[Case], roots: Mapping[str, Path]) -> Iterator[str]:
    """Yield a message for each dataset and weight file of some cases that does not exist here."""
    datasets = {case.dataset_name for case in cases}
    models = {case.model_name for case in cases}
    for key, spec in suite.datasets.items():
        if key not in datasets:
            continue
        dataset = spec.open(key, roots)
        if dataset.is_missing:
            yield f"{key} data not found"
    for key, model in suite.models.items():
        if key in models and model.weights is not None and model.weights.is_missing:
            yield f"{key} weights not found ({model.weights.source})"
