"""What a training step and an evaluation wait for: images, values read back, counting."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.datasets.base import Dataset
from bench.datasets.registry import open_dataset
from bench.errors import UserError
from bench.evaluation.inference import evaluate, forward
from bench.evaluation.setup import Setup
from bench.loading.autotune import choose_loading
from bench.loading.images import TrainImages
from bench.loading.loader import Batch, train_loader
from bench.loading.predecode import keep_decoded
from bench.machine.clock import synchronize
from bench.machine.device import pick_precision, set_precision
from bench.machine.numerics import Numerics
from bench.suite.evaluation import Evaluation
from bench.suite.model import ModelSpec
from bench.suite.recipe import Recipe
from bench.training.losses import build_loss
from benchmarks.gpu.rows import Row, goal
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import PRECISIONS, numerics_of, prepared
from benchmarks.paired import alternate, ratio
from benchmarks.steps import NUM_CLASSES, Steps, built, noise, training


def data(given: Settings) -> Iterator[Row]:
    """Time epochs on images from files against epochs on one batch in memory."""
    dataset = _dataset(given)
    for network in [name for name in ("ENet", "U-Net R34") if name in given.networks]:
        spec = ModelSpec.model_validate(given.networks[network])
        device = torch.device(given.device)
        height, width = given.size
        recipe = Recipe.model_validate(
            {
                "epochs": 100,
                "batch_size": given.batch_size,
                "size": None if given.camvid else given.size,
                "augment": [
                    {"HorizontalFlip": {"p": 0.5}},
                    {"RandomCrop": {"height": height - 8, "width": width}},
                ],
            }
        )
        images = TrainImages(dataset, dataset.samples("train"), recipe, seed=0)
        keep_decoded(images, "disk", "train", 100)
        loading = choose_loading(images, given.batch_size, device)
        loader, sampler = train_loader(images, given.batch_size, 0, loading)
        num = len(sampler)
        first, ran, arms = next(iter(loader)), _auto(given, device), {}
        for name, batches in (("from files", loader), ("in memory", [first] * num)):
            steps = training(built(spec, ran, device), ran, first, device, spec.arch)
            arms[name] = partial(steps, batches, num)
        alternate(arms, 1)  # warm-up
        seconds = alternate(arms, given.rounds)
        found = ratio(seconds["from files"], seconds["in memory"])
        yield {
            "network": network,
            "images": f"{len(images)} of {dataset.name}",
            "loading": loading.description,
            "epoch, s": round(sorted(seconds["from files"])[given.rounds // 2], 3),
            "from files / in memory": f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]",
        } | goal(1.05, found.value, at_most=True)


def _dataset(given: Settings) -> Dataset:
    if given.camvid:
        roots = {"camvid": Path(given.camvid)}
        return open_dataset("camvid", "camvid", None, {"partial": True}, roots)
    options = {"size": list(given.size), "num_train": 8 if given.is_toy else 256}
    return open_dataset("shapes", "shapes", None, options, {})


def _auto(given: Settings, device: torch.device) -> Numerics:
    """Return what a recipe that says nothing runs with."""
    return numerics_of(given, pick_precision("auto", device), "channels_last")


def readbacks(given: Settings) -> Iterator[Row]:
    """Count how often a training step waits for a value from the device, in each precision."""
    device = torch.device(given.device)
    batch = noise(given.batch_size, given.size, device)
    for network, asked in given.networks.items():
        spec = ModelSpec.model_validate(asked)
        for precision in PRECISIONS:
            numerics = numerics_of(given, precision, "channels_last")
            try:
                run, _ = prepared(given, spec, numerics)
            except UserError:
                continue  # the device does not compute in this precision
            per_step = waits_per_step(run, batch, device)
            row: Row = {"network": network, "precision": precision, "readbacks per step": per_step}
            yield row | goal(0.0, per_step, at_most=True)


def waits_per_step(run: Steps, batch: Batch, device: torch.device) -> float:
    """Return how often a training step waits for the device, apart from once per epoch.

    A GPU says when it is waited for; elsewhere, values that are read count.
    """

    def waits(num_steps: int) -> int:
        with _warned_of_waits() as warned, _Readbacks(device) as read:
            run([batch] * num_steps, num_steps)
        return max(len(warned), read.num)

    return (waits(5) - waits(1)) / 4


class _Readbacks(TorchDispatchMode):
    """Counts the operations that hand a value of a tensor on a device to Python."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.num = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it if it reads a value."""
        if func is torch.ops.aten._local_scalar_dense.default:
            self.num += args[0].device.type == self.device.type
        return func(*args, **kwargs or {})


@contextmanager
def _warned_of_waits() -> Iterator[list[warnings.WarningMessage]]:
    """Collect torch's warnings of waits for the GPU."""
    if not torch.cuda.is_available():
        yield []
        return
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield warned
        finally:
            torch.cuda.set_sync_debug_mode("default")


def scoring(given: Settings) -> Iterator[Row]:
    """Measure which part of an evaluation lies between the logits and the counts."""
    device = torch.device(given.device)
    batches = [noise(given.batch_size, given.size, device)] * 4
    recipe = Recipe.model_validate({"epochs": 1})
    for network, asked in given.networks.items():
        spec, numerics = ModelSpec.model_validate(asked), _auto(given, device)
        model = built(spec, numerics, device).eval()
        set_precision(numerics.precision, search=numerics.cudnn_benchmark)
        loss = build_loss(recipe.loss, NUM_CLASSES, device, recipe.aux_weight)
        setup = Setup(device, numerics, NUM_CLASSES, loss)

        def whole(model: Any = model, setup: Setup = setup) -> None:
            evaluate(model, batches, Evaluation(split="val"), setup)

        @torch.inference_mode()
        def logits(model: Any = model, setup: Setup = setup) -> None:
            for image, _, _ in batches:
                forward(model, image, setup)
            synchronize(setup.device)

        arms = {"whole": whole, "logits": logits}
        alternate(arms, 1)  # warm-up
        seconds = alternate(arms, given.rounds)
        found = ratio(seconds["whole"], seconds["logits"])
        share = max(0.0, 1 - 1 / found.value)
        rate = 4 * given.batch_size / sorted(seconds["whole"])[given.rounds // 2]
        yield {"network": network, "images/s": round(rate, 1), "scoring's share": round(share, 3)}
