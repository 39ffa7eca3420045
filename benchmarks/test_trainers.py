"""Measure epochs of the harness against those of Lightning's trainer and torchvision's loop.

    pip install lightning
    python -m pytest benchmarks/test_trainers.py -s

Each trains on the same CamVid images, on the CPU, as its users would: the same network and initial
weights, batches of 8, random crops and flips, SGD, a poly schedule per step, fp32. Each runs in a
process of its own; their epochs take turns, A B C A B C.

- The harness runs as a case does. Before the first epoch, it decodes the images once and chooses
  its workers; its images reach the network as uint8.
- Lightning's trainer runs a LightningModule and a DataLoader as in its introduction. It logs the
  loss, but has no logger, progress bar, summary or checkpoint. Its epochs are timed within one fit;
  the rest of the fit is not counted.
- torchvision's loop is that of references/segmentation/train.py, with its meters and the lines it
  prints, but into memory.

Both decode images with PIL in every epoch and transform them as torchvision's preset does, without
its scaling. Each gets the fastest of 0, 1 and 2 workers, as a short trial finds (`…_workers`), and
these persist, as Lightning advises. `test_same_work` shows that all three change the weights alike.
Figures of `test_against_other_trainers` are medians of the ratios of consecutive epochs, with their
95 % bootstrap intervals. Needs the real images in ../shared.
"""

import io
import logging
import multiprocessing
import os
import random
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomCrop
from torchvision.transforms import functional as transforms

from bench.datasets.base import Sample
from bench.datasets.registry import open_dataset
from bench.loading.autotune import choose_loading
from bench.loading.images import TrainImages
from bench.loading.loader import train_loader
from bench.loading.loading import Loading
from bench.loading.predecode import keep_decoded
from bench.machine.memory import keep_freed_memory
from bench.models.segmenter import IMAGENET
from bench.records.case_folder import CaseFolder
from bench.records.heartbeat import Heartbeat
from benchmarks import test_training as plain
from benchmarks.paired import ratio, show

BATCH = 8
VOID = 11  # in the masks of CamVid
PRINT_EVERY, SMOOTHED = 10, 20  # steps, as torchvision's script has them
NOTES = io.StringIO()  # its lines, which would fill the terminal
NETWORKS = {  # crop (H, W), images, rounds, and how many times as fast the harness must be
    "stub": (plain.Stub, (352, 480), 120, 11, 1.3),
    "unet-r18": (plain.unet, (128, 160), 48, 9, 1.0),
}
Batches = DataLoader[Any]
Turn = Callable[[], AbstractContextManager[None]]  # an epoch runs within it
SPAWN = multiprocessing.get_context("spawn")
pytestmark = [
    pytest.mark.skipif(not plain.CAMVID.is_dir(), reason="needs the real images of ../shared"),
    pytest.mark.skipif(find_spec("lightning") is None, reason="needs pip install lightning"),
    pytest.mark.filterwarnings("ignore"),  # Lightning advises by warnings
]


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks that are decoded, cropped and flipped each time."""

    def __init__(self, samples: Sequence[Sample], crop: tuple[int, int], *, centred: bool) -> None:
        self.samples, self.crop, self.centred = samples, crop, centred

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a normalised image (3, H, W) float32 and its target (H, W) int64."""
        sample = self.samples[index]
        image, mask = Image.open(sample.image).convert("RGB"), Image.open(sample.mask)
        if self.centred:
            image, mask = (transforms.center_crop(part, self.crop) for part in (image, mask))
        else:
            if random.random() < 0.5:
                image, mask = transforms.hflip(image), transforms.hflip(mask)
            box = RandomCrop.get_params(image, self.crop)
            image, mask = transforms.crop(image, *box), transforms.crop(mask, *box)
        pixels = transforms.convert_image_dtype(transforms.pil_to_tensor(image), torch.float)
        target = torch.as_tensor(np.array(mask), dtype=torch.int64)
        return transforms.normalize(pixels, IMAGENET.mean, IMAGENET.std), target


def train_images(num: int, crop: tuple[int, int], *, centred: bool = False) -> TrainImages:
    dataset = open_dataset("camvid", "camvid", None, {"partial": True}, {"camvid": plain.CAMVID})
    size = {"height": crop[0], "width": crop[1]}
    augment = [{"HorizontalFlip": {"p": 0.5}}, {"RandomCrop": size}]
    recipe = plain.recipe_of(BATCH, [{"CenterCrop": size}] if centred else augment)
    return TrainImages(dataset, dataset.samples("train")[:num], recipe, seed=0)


def sgd(net: nn.Module, num_steps: int) -> tuple[torch.optim.SGD, LambdaLR]:
    optimizer = torch.optim.SGD(net.parameters(), plain.LR, momentum=plain.MOMENTUM)
    return optimizer, LambdaLR(optimizer, lambda step: (1 - step / num_steps) ** plain.POWER)


def lightning(net: nn.Module, batches: Batches, num_epochs: int, turn: Turn) -> None:
    """Train with Lightning's trainer."""
    import lightning as L

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    num_steps = num_epochs * len(batches)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            images, targets = batch
            loss = F.cross_entropy(self.net(images), targets, ignore_index=VOID)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer, schedule = sgd(self, num_steps)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    class Turns(L.Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.turn = turn()
            self.turn.__enter__()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.turn.__exit__(None, None, None)

    extras = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    off = dict.fromkeys(extras, False)
    trainer = L.Trainer(accelerator="cpu", max_epochs=num_epochs, callbacks=[Turns()], **off)
    trainer.fit(Module(), batches)
    assert trainer.global_step == num_steps


def torchvision(net: nn.Module, batches: Batches, num_epochs: int, turn: Turn) -> None:
    """Train with torchvision's loop."""
    optimizer, schedule = sgd(net, num_epochs * len(batches))
    for _ in range(num_epochs):
        with turn():
            end = time.perf_counter()
            net.train()
            meters: dict[str, list[float]] = defaultdict(list)
            for step, (images, targets) in enumerate(batches):
                meters["data"].append(time.perf_counter() - end)
                loss = F.cross_entropy(net(images), targets, ignore_index=VOID)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                meters["loss"].append(loss.item())
                meters["lr"].append(optimizer.param_groups[0]["lr"])
                meters["time"].append(time.perf_counter() - end)
                if step % PRINT_EVERY == 0:
                    shown = (f"{name}: {smoothed(values)}" for name, values in meters.items())
                    print(step, *shown, file=NOTES)
                end = time.perf_counter()


def ours(name: str, num_epochs: int, turn: Turn, folder: Path) -> None:
    """Train as a case of the harness does."""
    build, crop, num_images, *_ = NETWORKS[name]
    images, recipe = train_images(num_images, crop), plain.recipe_of(BATCH)
    keep_freed_memory()
    keep_decoded(images, "disk", "train", num_epochs)
    batches, sampler = train_loader(images, BATCH, 0, choose_loading(images, BATCH, plain.CPU))
    case = CaseFolder(folder)
    with case.hold() as held:
        state = plain.begun(plain.seeded(build), recipe, num_epochs, len(sampler))
        train = plain.harness(state, batches, recipe, Heartbeat(held, lambda: False))
        for epoch in range(num_epochs):
            sampler.epoch = epoch
            with turn():
                train()


def smoothed(values: Sequence[float]) -> str:
    return f"{statistics.median(values[-SMOOTHED:]):.4f} ({statistics.fmean(values):.4f})"


THEIRS = {"lightning": lightning, "torchvision": torchvision}


def be(arm: str, name: str, num_workers: int, num_epochs: int, told: Connection, out: str) -> None:
    """Train in a process of its own; each epoch waits for its turn and tells its seconds."""

    @contextmanager
    def turn() -> Iterator[None]:
        told.recv()
        start = time.perf_counter()
        yield
        told.send(time.perf_counter() - start)

    warnings.simplefilter("ignore")  # Lightning advises by warnings
    if arm == "ours":
        os.environ["BENCH_CACHE"] = f"{out}/cache"
        ours(name, num_epochs, turn, Path(out) / "case")
        return
    build, crop, num_images, *_ = NETWORKS[name]
    files = Files(train_images(num_images, crop).samples, crop, centred=False)
    how = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    batches = DataLoader(files, BATCH, shuffle=True, drop_last=True, **how)
    THEIRS[arm](plain.seeded(build), batches, num_epochs, turn)


@contextmanager
def started(*what: Any) -> Iterator[Connection]:
    """Start a process that trains; it ends with the body."""
    here, there = SPAWN.Pipe()
    arm, name, num_workers, num_epochs, out = what
    process = SPAWN.Process(target=be, args=(arm, name, num_workers, num_epochs, there, out))
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()


def epoch(told: Connection) -> float:
    """Let a process train an epoch; return its seconds."""
    told.send("go")
    seconds: float = told.recv()
    return seconds


def fastest(arm: str, name: str, out: str) -> int:
    """Return the number of workers with which one of two epochs is fastest, after a first one."""
    seconds = {}
    for num_workers in (0, 1, 2):
        with started(arm, name, num_workers, 3, out) as told:
            seconds[num_workers] = min([epoch(told) for _ in range(3)][1:])
    return min(seconds, key=lambda num: seconds[num])


@pytest.mark.parametrize(("name", "steps"), [("stub", 3), ("unet-r18", 1)])
def test_same_work(name: str, steps: int, tmp_path: Path) -> None:
    """A U-Net takes one step: over more, BatchNorm makes much of differences by rounding."""
    build, crop, *_ = NETWORKS[name]
    images, recipe = train_images(steps * BATCH, crop, centred=True), plain.recipe_of(BATCH)
    batches, sampler = train_loader(images, BATCH, 0, Loading())
    order = [[index for _, index in batch] for batch in sampler.batches(0)]
    same = DataLoader(Files(images.samples, crop, centred=True), batch_sampler=order)
    nets = [plain.seeded(build) for _ in range(4)]
    case = CaseFolder(tmp_path)
    with case.hold() as held:
        beat = Heartbeat(held, lambda: False)
        plain.harness(plain.begun(nets[1], recipe, 1, steps), batches, recipe, beat)()
    lightning(nets[2], same, 1, nullcontext)
    torchvision(nets[3], same, 1, nullcontext)
    before, *after = (nn.utils.parameters_to_vector(net.parameters()).detach() for net in nets)
    mine, *theirs = (weights - before for weights in after)
    for change in theirs:
        assert (change - mine).norm() < 0.005 * mine.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_against_other_trainers(name: str, tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    *_, rounds, goal = NETWORKS[name]
    workers = {arm: fastest(arm, name, str(tmp_path)) for arm in THEIRS}
    num_epochs = rounds + 1  # the first warms up
    with ExitStack() as stack:
        arms = {
            arm: stack.enter_context(
                started(arm, name, workers.get(arm, 0), num_epochs, str(tmp_path))
            )
            for arm in ("ours", *THEIRS)
        }
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}

        def alternate() -> None:
            for _ in range(num_epochs):
                for arm, told in arms.items():
                    seconds[arm].append(epoch(told))

        benchmark.pedantic(alternate, rounds=1)
    for arm, times in seconds.items():
        benchmark.extra_info[f"{arm}, s"] = round(statistics.median(times[1:]), 4)
    found = {arm: ratio(seconds[arm][1:], seconds["ours"][1:]) for arm in THEIRS}
    show(benchmark, **found, **{f"{arm}_workers": num for arm, num in workers.items()})
    for arm, times_as_fast in found.items():
        assert (times_as_fast.value if goal > 1 else times_as_fast.high) >= goal, arm
