"""What a model costs: counts, and the time that one image takes; needs no training."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from bench.machine.clock import synchronize
from bench.machine.device import autocast, describe_device, pick_precision, set_precision
from bench.machine.environment import environment
from bench.models.complexity import backward, complexity, forward_gmacs, state_bytes
from bench.models.geometry import Geometry
from bench.models.networks import find_encoder
from bench.models.segmenter import build_model, without_values
from bench.records.record import Latency, Profile, now
from bench.suite.case import Case
from bench.suite.model import ModelSpec
from bench.suite.schema import Size, counted_size
from bench.training.optimizer import build_optimizer

MOST_GMACS = 4.0  # of a timed pass on a CPU: a fraction of a second
SMALLEST = 64  # pixels per side of a timed image
WARM_UP, FEWEST_RUNS, MOST_RUNS, ENOUGH_S = 2, 5, 200, 1.0


def profile_case(case: Case, device: torch.device) -> Profile:
    """Count a case's network and time it, without data or training.

    Counts are for the recipe's `size`; if that gives one side or nothing, for a stored image of
    512x512. On the CPU, the size is halved for timing until a pass takes a fraction of a second.

    Raises:
        UserError: if the network does not build or run.
    """
    num_classes = case.dataset.labels.num_classes
    recipe = case.recipe
    size = counted_size(recipe.size)
    torch.manual_seed(case.seed)
    model, _ = build_model(case.model.model_copy(update={"weights": None}), num_classes)
    facts = complexity(
        case.model,
        num_classes,
        size,
        model.geometry,
        recipe.micro_batch,
        recipe.freeze_encoder,
    )
    timed = _timed_size(case.model, num_classes, model.geometry, size, device)
    precision = pick_precision(recipe.precision, device)
    set_precision(precision)
    with autocast(device, precision):
        latency = _latency(model.to(device).eval(), timed, device)
    return Profile(
        id=case.id,
        case=case,
        measured=now(),
        environment=dict(environment()) | describe_device(device),
        numerics={
            "device": device.type,
            "precision": precision,
            "threads": torch.get_num_threads(),
        },
        num_classes=num_classes,
        complexity=asdict(facts)
        | {"checkpoint_bytes": _checkpoint_bytes(case, num_classes, model.geometry)},
        latency=latency,
    )


def _timed_size(
    spec: ModelSpec, num_classes: int, geometry: Geometry, size: Size, device: torch.device
) -> Size:
    """Return the size; on the CPU, halve it until one pass is quick enough to be timed."""
    if device.type != "cpu":
        return size

    def gmacs(height: int, width: int) -> float:
        padded = geometry.padded(height), geometry.padded(width)
        return without_values(
            spec, num_classes, lambda net, on: forward_gmacs(net.eval(), padded, on)[0]
        )

    height, width = size
    while min(height, width) // 2 >= SMALLEST and gmacs(height, width) > MOST_GMACS:
        height, width = height // 2, width // 2
    return height, width


@torch.inference_mode()
def _latency(model: nn.Module, size: Size, device: torch.device) -> Latency:
    """Time single images (1, 3, H, W) uint8, already on the device, to their logits."""
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)

    def seconds() -> float:
        synchronize(device)
        start = time.perf_counter()
        model(image)
        synchronize(device)
        return time.perf_counter() - start

    for _ in range(WARM_UP):
        seconds()
    times = _repeated(seconds)
    p50, p95 = np.percentile(times, [50, 95])
    return Latency(
        size=size,
        p50_ms=1e3 * float(p50),
        p95_ms=1e3 * float(p95),
        images_per_s=1 / statistics.mean(times),
        num_runs=len(times),
    )


def _repeated(seconds: Callable[[], float]) -> list[float]:
    """Measure a few times, then repeat until enough time has passed."""
    times: list[float] = []
    while len(times) < FEWEST_RUNS or (sum(times) < ENOUGH_S and len(times) < MOST_RUNS):
        times.append(seconds())
    return times


def _checkpoint_bytes(case: Case, num_classes: int, geometry: Geometry) -> int:
    """Add up the weights and what the recipe's optimizer keeps after a step."""

    def count(net: nn.Module, device: torch.device) -> int:
        side = geometry.padded(2 * SMALLEST)
        if case.recipe.freeze_encoder:
            find_encoder(net, "freeze_encoder").requires_grad_(False)
        images = torch.zeros(case.recipe.micro_batch, 3, side, side, device=device)
        backward(net.train()(images))
        optimizer = build_optimizer(case.recipe, net)
        optimizer.step()
        kept = optimizer.state_dict()["state"].values()
        return state_bytes(net.state_dict()) + sum(map(state_bytes, kept))

    return without_values(case.model, num_classes, count)
