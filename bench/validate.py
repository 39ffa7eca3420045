"""Whether a suite's cases can run, found out before any of them does."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.case import Case
from bench.data.loader import EvalImages, TrainImages, eval_size, limited, stack
from bench.data.transforms import build_transform
from bench.device import pick_device
from bench.errors import Fault, UserError
from bench.losses import build_loss, mean
from bench.models import build_model, input_multiple, without_values
from bench.profiling import Complexity, complexity
from bench.scoring import open_case_dataset
from bench.suite import Suite, SuiteFile, load

STAND_IN_SIZE = (512, 512)  # where neither the data nor the recipe says


@dataclass(frozen=True)
class Checked:
    """What is known of a case before it runs."""

    case: Case
    facts: Complexity
    fingerprints: Mapping[str, str]


def load_checked(path: Path, settings: Iterable[str] = ()) -> SuiteFile:
    """Read a suite, its augmentations included."""
    return load(path, settings, check_transform=build_transform)


def check(
    file: SuiteFile, cases: Iterable[Case], roots: Mapping[str, Path], need_data: bool
) -> dict[str, Checked]:
    """Check each case's data, loss, network and batch.

    Args:
        need_data: every split must be there; without it missing data is passed over, and
            networks are tried at the recipe's size or a stand-in's.

    Returns:
        What was found, by case id.

    Raises:
        UserError: with every fault and its line.
    """
    faults: list[Fault] = []
    checked: dict[str, Checked] = {}
    networks: dict[object, Complexity | None] = {}
    samples: dict[object, tuple[tuple[int, int] | None, dict[str, str]] | None] = {}
    for case in cases:
        data_key = (case.dataset_name, case.recipe_name, case.recipe.model_dump_json())
        if data_key not in samples:
            try:
                samples[data_key] = _check_data(file.suite, case, roots, need_data)
            except UserError as error:
                faults.append(Fault(("datasets", case.dataset_name), str(error)))
                samples[data_key] = None
        found = samples[data_key]
        if found is None:
            continue
        size, fingerprints = found
        size = size or case.recipe.size or STAND_IN_SIZE
        network_key = (case.model_name, case.dataset_name, size, case.recipe.micro_batch)
        if network_key not in networks:
            try:
                networks[network_key] = _check_network(case, size)
            except UserError as error:
                faults.append(Fault(("models", case.model_name), str(error)))
                networks[network_key] = None
        facts = networks[network_key]
        if facts is not None:
            checked[case.id] = Checked(case, facts, fingerprints)
    if faults:
        raise file.error(faults)
    return checked


def _check_data(
    suite: Suite, case: Case, roots: Mapping[str, Path], need_data: bool
) -> tuple[tuple[int, int] | None, dict[str, str]]:
    """Return the size of a training image and the fingerprint of each split."""
    recipe = case.recipe
    build_loss(recipe.loss, case.dataset.labels.num_classes, torch.device("cpu"))
    dataset = open_case_dataset(case, roots)
    missing_root = dataset.needs_root and (dataset.root is None or not dataset.root.is_dir())
    if missing_root and not need_data:
        return None, {}
    train = limited(dataset.samples(case.train_split), case.limit)
    if recipe.epochs != 0 and len(train) < recipe.batch_size:
        raise UserError(
            f"{len(train)} training images are fewer than a batch of {recipe.batch_size} "
            f"(recipe {case.recipe_name}); lower batch_size or raise limit."
        )
    splits = [suite.splits.select, *(e.split for e in suite.scored.values())]
    prints = {split: dataset.fingerprint(split) for split in {case.train_split, *splits}}
    images = TrainImages(dataset, train, recipe, case.seed)
    items = [images[0, i] for i in (0, len(train) - 1)]
    for item in items:
        if isinstance(item, UserError):
            raise item
    tensors = [item[0] for item in items if not isinstance(item, UserError)]
    if recipe.micro_batch > 1:
        stack(tensors, [train[0].id, train[-1].id])
    return (tensors[0].shape[1], tensors[0].shape[2]), prints


def _check_network(case: Case, size: tuple[int, int]) -> Complexity:
    num_classes = case.dataset.labels.num_classes
    multiple = without_values(
        case.model, num_classes, lambda net, _: input_multiple(net, case.model, num_classes)
    )
    return complexity(case.model, num_classes, size, multiple, case.recipe.micro_batch)


def check_deep(
    file: SuiteFile, cases: Iterable[Case], roots: Mapping[str, Path], device_name: str
) -> Iterable[tuple[Case, float]]:
    """Load every model and take one forward and backward at batch 2; yield the losses.

    Raises:
        UserError: for the first case that cannot, with its line.
    """
    device = pick_device(device_name)
    for case in cases:
        dataset = open_case_dataset(case, roots)
        samples = limited(dataset.samples(case.train_split), 2)
        try:
            for evaluation in file.suite.scored.values():
                scored = limited(dataset.samples(evaluation.split), 2)
                size = eval_size(evaluation, case.recipe)
                images = EvalImages(dataset, scored, size, evaluation.score_at)
                for index in range(len(scored)):
                    if isinstance(found := images[0, index], UserError):
                        raise found
            train = TrainImages(dataset, samples, case.recipe, case.seed)
            items = [train[0, index] for index in range(len(samples))]
            for item in items:
                if isinstance(item, UserError):
                    raise item
            whole = [item for item in items if not isinstance(item, UserError)]
            image = stack([item[0] for item in whole], [item[2] for item in whole]).to(device)
            target = stack([item[1] for item in whole], [item[2] for item in whole]).to(device)
            num_classes = case.dataset.labels.num_classes
            model, _ = build_model(case.model, num_classes)
            loss_fn = build_loss(case.recipe.loss, num_classes, device)
            logits = model.to(device)(image)
            loss = mean(loss_fn.total(logits, target.long()), loss_fn.weight(target.long()))
            loss.backward()
        except UserError as error:
            raise file.error([Fault(("models", case.model_name), str(error))]) from error
        yield case, float(loss.detach())
