"""Checking that a suite's cases can run, before any of them does."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from bench.datasets.base import FileFault
from bench.datasets.class_weights import ClassCounts
from bench.errors import Fault, UserError
from bench.loading.images import EvalImages, Item, TrainImages, limited, require_batch
from bench.loading.transforms import build_transform
from bench.lookup import unknown
from bench.machine.device import algorithms, autocast, pick_device, pick_precision
from bench.models.activation_checkpointing import recompute_activations
from bench.models.complexity import Complexity, complexity
from bench.models.determinism import unrepeatable
from bench.models.geometry import Geometry
from bench.models.networks import find_encoder
from bench.models.segmenter import (
    build_model,
    find_geometry,
    gives_probabilities,
    require_one_device,
    without_values,
)
from bench.models.weights import of_a_deeper_network
from bench.suite.case import Case, open_case_dataset
from bench.suite.load import SuiteFile, SuiteSource, load
from bench.suite.recipe import Recipe
from bench.suite.schema import Size, counted_size
from bench.suite.suite import Suite
from bench.text import enumerated, first_line, plural
from bench.training.losses import Loss, build_loss, mean, with_counted_weights
from bench.training.optimizer import build_optimizer

T = TypeVar("T")
PROBABILITIES = (
    "seems to end in a softmax or sigmoid: its outputs are probabilities, but losses expect logits "
    "and would apply a softmax again"
)


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
    check_splits = partial(_check_splits, suite, case, roots, need_data)
    splits = tried.once(("data", case.dataset_name), of_data, of_data, check_splits)
    size: Size | None = None
    if splits:
        check_batch = partial(_check_batch, case, roots)
        size = tried.once(("batch", on_data), of_recipe, of_data, check_batch)
    if size is None:  # the network is checked anyway
        size = counted_size(recipe.size)
    of_network = (
        *(case.model_name, case.dataset_name, size, case.parent and case.parent.part),
        *(recipe.micro_batch, recipe.freeze_encoder, recipe.encoder_lr, recipe.deterministic),
    )
    check_network = partial(_check_network, case, size, need_data, device)
    of_model = ("models", case.model_name)
    found = tried.once(("network", of_network), of_model, of_data, check_network)
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


def _check_splits(
    suite: Suite, case: Case, roots: Mapping[str, Path], need_data: bool
) -> dict[str, str]:
    """Return the fingerprint of each used split; empty if data that may be missing is missing."""
    dataset = open_case_dataset(case, roots)
    if dataset.is_missing and not need_data:
        return {}
    splits = {case.train_split, suite.splits.select, *(e.split for e in suite.scored.values())}
    for split in sorted(splits):
        if not dataset.samples(split):
            where = f" in {dataset.root}" if dataset.root is not None else ""
            raise UserError(f"The split {split!r} has no images{where}.")
    return {split: dataset.fingerprint(split) for split in sorted(splits)}


def _check_batch(case: Case, roots: Mapping[str, Path]) -> tuple[int, int]:
    """Return the (H, W) of training images, after trying the first and the last."""
    dataset, recipe = open_case_dataset(case, roots), case.recipe
    train = limited(dataset.samples(case.train_split), case.limit)
    if recipe.epochs != 0:
        require_batch(len(train), recipe.batch_size)
    images = TrainImages(dataset, train, recipe, case.seed)
    first, last = _item(images, 0), _item(images, len(train) - 1)
    if first[0].shape != last[0].shape and recipe.micro_batch > 1:
        (h, w), (last_h, last_w) = first[0].shape[1:], last[0].shape[1:]
        raise UserError(
            f"Training images differ in size ({h}x{w} and {last_h}x{last_w}): give size, or crop "
            "to one size in augment."
        )
    return first[0].shape[1], first[0].shape[2]


def _item(images: TrainImages | EvalImages, index: int) -> Item:
    item = images[0, index]
    if isinstance(item, UserError):
        raise item
    return item


@dataclass(frozen=True)
class CheckedNetwork:
    """What is known about a network before it runs; note: what a user should know about it."""

    facts: Complexity
    note: str | None


def _check_network(
    case: Case, size: tuple[int, int], need_weights: bool, device: torch.device
) -> CheckedNetwork:
    num_classes, given = case.dataset.labels.num_classes, case.model.weights
    if given is not None and given.is_missing and need_weights:
        raise UserError(given.missing_message)

    def look(net: nn.Module, _: torch.device) -> tuple[Geometry, bool]:
        if case.recipe.freeze_encoder:
            find_encoder(net, "freeze_encoder")
        encoder = getattr(net, "encoder", None)
        weights = list(encoder.parameters()) if isinstance(encoder, nn.Module) else []
        frozen = case.recipe.freeze_encoder or (
            bool(weights) and not any(p.requires_grad for p in weights)
        )
        part = "all" if case.parent is None else case.parent.part
        if part != "all" and not any(key.startswith(f"{part}.") for key in net.state_dict()):
            known = ["all", *(name for name, _ in net.named_children())]
            raise UserError(f"init_from: {unknown('part', part, known)}")
        build_optimizer(case.recipe, net)
        return find_geometry(net, case.model, num_classes), frozen

    note = None
    if given is not None and given.file is not None:
        model, built = build_model(case.model, num_classes)  # finds a file that does not fit
        part = getattr(model.net, "encoder", None)
        if given.part == "encoder" and isinstance(part, nn.Module):
            deeper = of_a_deeper_network(part, built["unused_keys"])
            if deeper is not None:
                num = plural(len(built["unused_keys"]), "tensor")
                note = (
                    f"{given.source} has {num} that the encoder lacks, such as {deeper}: it seems "
                    "to be of a deeper network"
                )
    geometry, frozen = without_values(case.model, num_classes, look)
    if frozen and given is None and case.parent is None:
        raise UserError(
            f"{case.model.arch}: its encoder is frozen with random weights; give weights:, or "
            "freeze_encoder: false."
        )
    recipe = case.recipe
    with algorithms(recipe.deterministic):  # raises for some operations without such an algorithm
        facts = complexity(
            case.model, num_classes, size, geometry, recipe.micro_batch, recipe.freeze_encoder
        )
        if recipe.deterministic and device.type == "cuda":
            of = case.model, num_classes, size, geometry, recipe.micro_batch
            if names := unrepeatable(*of):
                raise UserError(
                    f"deterministic: a GPU has no deterministic {enumerated(names)}, which "
                    f"{case.model.arch} trains through; leave `deterministic` out, choose another "
                    "network, or train on the CPU."
                )
    if ":" not in case.model.arch:
        return CheckedNetwork(facts, note)
    if device.type != "cpu":
        padded = geometry.padded(size[0]), geometry.padded(size[1])
        require_one_device(case.model, num_classes, padded)
    if gives_probabilities(case.model, num_classes, geometry):
        note = f"{case.model.arch} {PROBABILITIES}"
    return CheckedNetwork(facts, note)


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
    for evaluation in suite.scored.values():
        scored = limited(dataset.samples(evaluation.split), 2)
        images = EvalImages(dataset, scored, evaluation, case.recipe)
        for index in range(len(scored)):
            _item(images, index)
    samples = limited(dataset.samples(case.train_split), 2)
    train = TrainImages(dataset, samples, case.recipe, case.seed)
    items = [_item(train, index) for index in range(len(samples))]
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
