"""Trying a case's network before it runs: its weights, sizes, parts and devices."""

from dataclasses import dataclass

import torch
from torch import nn

from bench.errors import UserError
from bench.lookup import unknown
from bench.machine.device import algorithms, pick_device
from bench.models.complexity import complexity
from bench.models.counts import Complexity
from bench.models.determinism import unrepeatable
from bench.models.geometry import Geometry
from bench.models.memory_format import takes_channels_last
from bench.models.networks import find_encoder
from bench.models.probing import (
    find_geometry,
    gives_probabilities,
    require_one_device,
    without_values,
)
from bench.models.segmenter import build_model
from bench.models.weights import of_a_deeper_network
from bench.suite.case import Case
from bench.suite.model import ModelSpec, Weights
from bench.suite.recipe import Recipe
from bench.text import enumerated, plural
from bench.training.optimizer import build_optimizer

PROBABILITIES = (
    "seems to end in a softmax or sigmoid: its outputs are probabilities, but losses expect logits "
    "and would apply a softmax again"
)


@dataclass(frozen=True)
class CheckedNetwork:
    """What is known about a network before it runs; note: what a user should know about it."""

    facts: Complexity
    note: str | None


def check_network(
    case: Case, size: tuple[int, int], need_weights: bool, device_name: str
) -> CheckedNetwork:
    """Check that a case's network builds, takes its weights, and trains at an image size.

    Raises:
        UserError: saying what does not work.
    """
    device = pick_device(device_name)
    recipe, num_classes, given = case.recipe, case.dataset.labels.num_classes, case.model.weights
    if given is not None and given.is_missing and need_weights:
        raise UserError(given.missing_message)
    note = None
    if given is not None and given.file is not None:
        note = _note_on_weights(case.model, given, num_classes)

    def look(net: nn.Module, _: torch.device) -> tuple[Geometry, bool]:
        _check_parts(net, case)
        return find_geometry(net, case.model, num_classes), _is_frozen(net, recipe)

    geometry, frozen = without_values(case.model, num_classes, look)
    if frozen and given is None and case.parent is None:
        raise UserError(
            f"{case.model.arch}: its encoder is frozen with random weights; give weights:, or "
            "freeze_encoder: false."
        )
    with algorithms(recipe.deterministic):  # raises for some operations without such an algorithm
        facts = complexity(
            case.model, num_classes, size, geometry, recipe.micro_batch, recipe.freeze_encoder
        )
        if recipe.deterministic and device.type == "cuda":
            _require_repeatable(case, size, geometry)
    if ":" not in case.model.arch:
        return CheckedNetwork(facts, note)
    if recipe.memory_format == "channels_last" and not takes_channels_last(case.model, num_classes):
        raise UserError(
            f"memory_format: {case.model.arch} does not run in channels_last; use reshape instead "
            "of view, or memory_format: contiguous."
        )
    if device.type != "cpu":
        padded = geometry.padded(size[0]), geometry.padded(size[1])
        require_one_device(case.model, num_classes, padded)
    if gives_probabilities(case.model, num_classes, geometry):
        note = f"{case.model.arch} {PROBABILITIES}"
    return CheckedNetwork(facts, note)


def _note_on_weights(model: ModelSpec, given: Weights, num_classes: int) -> str | None:
    """Load a file of weights; return what a user should know about it.

    Raises:
        UserError: if it does not fit.
    """
    built, facts = build_model(model, num_classes)
    encoder, unused = getattr(built.net, "encoder", None), facts["unused_keys"]
    if given.part != "encoder" or not isinstance(encoder, nn.Module):
        return None
    deeper = of_a_deeper_network(encoder, unused)
    if deeper is None:
        return None
    return (
        f"{given.source} has {plural(len(unused), 'tensor')} that the encoder lacks, such as "
        f"{deeper}: it seems to be of a deeper network"
    )


def _check_parts(net: nn.Module, case: Case) -> None:
    """Check that a network has the parts that the recipe and init_from name."""
    if case.recipe.freeze_encoder:
        find_encoder(net, "freeze_encoder")
    part = "all" if case.parent is None else case.parent.part
    if part != "all" and not any(key.startswith(f"{part}.") for key in net.state_dict()):
        known = ["all", *(name for name, _ in net.named_children())]
        raise UserError(f"init_from: {unknown('part', part, known)}")
    build_optimizer(case.recipe, net)


def _is_frozen(net: nn.Module, recipe: Recipe) -> bool:
    """Whether the recipe or the network itself freezes the encoder."""
    encoder = getattr(net, "encoder", None)
    weights = list(encoder.parameters()) if isinstance(encoder, nn.Module) else []
    return recipe.freeze_encoder or (bool(weights) and not any(w.requires_grad for w in weights))


def _require_repeatable(case: Case, size: tuple[int, int], geometry: Geometry) -> None:
    num_classes, batch = case.dataset.labels.num_classes, case.recipe.micro_batch
    if names := unrepeatable(case.model, num_classes, size, geometry, batch):
        raise UserError(
            f"deterministic: a GPU has no deterministic {enumerated(names)}, which "
            f"{case.model.arch} trains through; leave `deterministic` out, choose another "
            "network, or train on the CPU."
        )
