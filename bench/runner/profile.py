"""What a model costs: counts, and the time that images take; needs no training."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.machine.clock import synchronize
from bench.machine.device import autocast, describe_device, set_precision
from bench.machine.environment import environment, num_cores
from bench.machine.numerics import CompileMode, Precision
from bench.machine.peak import peak_tflops
from bench.models.complexity import backward, complexity, forward_gmacs, state_bytes
from bench.models.geometry import Geometry
from bench.models.memory_format import takes_channels_last
from bench.models.networks import find_encoder
from bench.models.probing import without_values
from bench.models.segmenter import Segmenter, build_model
from bench.records.record import Latency, Profile, now
from bench.runner.numerics import choose_numerics
from bench.suite.case import Case
from bench.suite.model import ModelSpec
from bench.suite.schema import Size, counted_size
from bench.training.optimizer import build_optimizer

QUICK_GMACS = 4.0  # of a pass on a CPU that tells how long a larger one takes
MOST_S = 4.0  # of a timed pass
SMALLEST = 64  # pixels per side of an image that is timed
WARM_UP, FEWEST_RUNS, MOST_RUNS, ENOUGH_S = 2, 5, 200, 1.0


@dataclass(frozen=True)
class Conditions:
    """What a profile measures, the same for all networks that are compared.

    size: (H, W); None: that of the recipe, or 512x512 if it has none.
    batch_size: images in a timed pass.
    precision, memory_format, threads: None: as the recipe says, and torch's number of threads.
    compile: the mode of torch.compile; None: not compiled.
    """

    size: Size | None = None
    batch_size: int = 1
    precision: str | None = None
    threads: int | None = None
    memory_format: str | None = None
    compile: CompileMode | None = None


def profile_case(case: Case, device: torch.device, conditions: Conditions | None = None) -> Profile:
    """Count a case's network and time it, without data or training.

    A network that would take too long on a CPU is not timed; the profile says why.

    Raises:
        UserError: if the network does not build or run, or a condition cannot be met.
    """
    conditions = conditions or Conditions()
    if (conditions.threads or 1) > num_cores():
        raise UserError(f"{conditions.threads} threads: this machine has {num_cores()} cores.")
    num_classes = case.dataset.labels.num_classes
    recipe = case.recipe
    size = conditions.size or counted_size(recipe.size)
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
    asked = {
        "precision": conditions.precision or recipe.precision,
        "memory_format": conditions.memory_format or recipe.memory_format,
    }
    takes = takes_channels_last(case.model, num_classes)
    ran = choose_numerics(recipe.model_copy(update=asked), device, "", 1, None, takes)
    set_precision(ran.precision)
    with _threads(conditions.threads):
        numerics = {
            "device": device.type,
            "precision": ran.precision,
            "threads": torch.get_num_threads(),
            "memory_format": ran.memory_format,
            "compile": conditions.compile,
        }
        model = model.to(device).lay_out(ran.memory_format).eval()
        timed = Timed(model, device, ran.precision, conditions.batch_size)
        expected = timed.expected_s(case.model, num_classes, size) if device.type == "cpu" else 0.0
        if conditions.compile is not None and expected <= MOST_S:
            timed.compile(conditions.compile, size, case.model.arch)
        latency = timed.latency(size) if expected <= MOST_S else None
        peak = peak_tflops(device, ran.precision) if latency else None
    return Profile(
        id=case.id,
        case=case,
        measured=now(),
        environment=dict(environment()) | describe_device(device),
        numerics=numerics,
        num_classes=num_classes,
        complexity=asdict(facts)
        | {"checkpoint_bytes": _checkpoint_bytes(case, num_classes, model.geometry)},
        latency=latency,
        batch_size=conditions.batch_size,
        peak_tflops=peak,
        untimed=None if latency else f"one pass would take about {expected:.0f} s",
    )


@contextmanager
def _threads(num: int | None) -> Iterator[None]:
    """Let torch use a number of CPU threads while the body runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(num or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Timed:
    """A model in evaluation, to be timed from uint8 images on the device to logits."""

    model: Segmenter
    device: torch.device
    precision: Precision
    batch_size: int

    def compile(self, mode: CompileMode, size: Size, name: str) -> None:
        """Compile passes over images of a size.

        Raises:
            UserError: if the network cannot be compiled as one graph.
        """
        shape = (self.batch_size, 3, *size)
        images = torch.zeros(shape, dtype=torch.uint8, device=self.device)

        def run(images: Tensor) -> None:
            with autocast(self.device, self.precision):
                self.model(images)

        with torch.inference_mode():
            self.model.compile_for(mode, images, run, name)

    def expected_s(self, spec: ModelSpec, num_classes: int, size: Size) -> float:
        """Estimate the time of a pass from one at a smaller size; 0 if it is quick anyway."""
        geometry = self.model.geometry

        def gmacs(height: int, width: int) -> float:
            padded = geometry.padded(height), geometry.padded(width)
            one = without_values(
                spec, num_classes, lambda net, on: forward_gmacs(net.eval(), padded, on)[0]
            )
            return one * self.batch_size

        small = size
        while min(small) // 2 >= SMALLEST and gmacs(*small) > QUICK_GMACS:
            small = small[0] // 2, small[1] // 2
        if small == size:
            return 0.0
        once = self.once(small)
        once()  # warm-up
        return once() * gmacs(*size) / gmacs(*small)

    def once(self, size: Size) -> Callable[[], float]:
        """Return a function that runs a pass on random images and returns its seconds."""
        shape = (self.batch_size, 3, *size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)

        @torch.inference_mode()
        def seconds() -> float:
            synchronize(self.device)
            start = time.perf_counter()
            # Opened for each pass, as in an evaluation: an open one keeps the cast weights.
            with autocast(self.device, self.precision):
                self.model(images)
            synchronize(self.device)
            return time.perf_counter() - start

        return seconds

    def latency(self, size: Size) -> Latency:
        """Time passes of a size."""
        once = self.once(size)
        for _ in range(WARM_UP):
            once()
        times = _repeated(once)
        p50, p95 = np.percentile(times, [50, 95])
        return Latency(
            size=size,
            p50_ms=1e3 * float(p50),
            p95_ms=1e3 * float(p95),
            images_per_s=self.batch_size / statistics.mean(times),
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
