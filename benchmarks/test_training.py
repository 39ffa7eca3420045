"""Measure what the harness adds to training and scoring, against plain loops, on the CPU.

    python -m pytest benchmarks -s

`test_loop_against_by_hand`: an epoch of the harness against the same loop written by hand, on the
same batches in memory. `test_real_images_against_memory`: an epoch on decoded CamVid images,
flipped and cropped, against one on a batch in memory. `test_share_of_prediction_and_counting`: the
share of an evaluation that is spent between logits and counts.
`test_epoch_time_against_wall_clock`: the times that the harness reports for sleeping loaders and
networks. `test_recorded_epoch_time_against_wall_clock`: the epoch time in the record of a whole
case with a sleeping network. `test_known_tricks`: the time that the harness's way of predicting
and counting saves over the obvious way.

Alternatives run in turn, A B A B, so that other load on the machine affects them alike. Figures
are medians of the ratios of consecutive runs, with their 95 % bootstrap intervals.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.datasets.registry import open_dataset
from bench.evaluation import inference
from bench.evaluation.confusion import count_pixels
from bench.evaluation.setup import Setup
from bench.loading.images import TrainImages
from bench.loading.loader import train_loader
from bench.loading.loading import Loading
from bench.loading.predecode import keep_decoded
from bench.machine.clock import Clock
from bench.machine.numerics import Numerics
from bench.models.geometry import Geometry
from bench.models.segmenter import IMAGENET, Segmenter
from bench.records.case_folder import CaseFolder
from bench.records.heartbeat import Heartbeat
from bench.records.record import read_record
from bench.runner.run_case import run_case
from bench.runner.task import Options, Task
from bench.suite.evaluation import Evaluation
from bench.suite.expand import expand
from bench.suite.load import load
from bench.suite.recipe import Recipe
from bench.training.loop import TrainState, train_epoch
from bench.training.losses import Loss, build_loss
from bench.training.optimizer import build_optimizer
from benchmarks.paired import in_turn, median, ratio, show

CAMVID = Path(__file__).parent.parent.parent / "shared" / "data" / "camvid"
CPU = torch.device("cpu")
HEIGHT, WIDTH = 352, 480
NUM_CLASSES = 11
LR, MOMENTUM, POWER = 0.01, 0.9, 0.9
SLEEP_S = 0.05
Batches = list[tuple[Tensor, Tensor, list[str]]]
Epoch = Callable[[], object]
Beat = Callable[..., None]


class Stub(nn.Module):
    """A tiny network, so that the loop's own cost shows: 3-8-11 channels, stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, NUM_CLASSES, 3, stride=2, padding=1),
            nn.Upsample(scale_factor=4),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        return self.net(image)


class Sleepy(nn.Module):
    """A custom network that sleeps in training and records when it is called."""

    input_multiple = 1
    calls: ClassVar[list[tuple[bool, float]]] = []  # (training, time), for all instances

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        self.calls.append((self.training, time.perf_counter()))
        if self.training:
            time.sleep(SLEEP_S)
        return self.net(image)


def unet() -> nn.Module:
    return smp.Unet("resnet18", encoder_weights=None, classes=NUM_CLASSES)


def in_memory(num: int, batch_size: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Batches:
    """Make batches of noise with targets of 16 x 16 squares, some of them void."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(num):
        shape = (batch_size, 3, *size)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        shape = (batch_size, 1, size[0] // 16, size[1] // 16)
        squares = torch.randint(0, NUM_CLASSES + 1, shape, generator=generator)
        targets = F.interpolate(squares.float(), size)[:, 0]
        targets[targets == NUM_CLASSES] = 255
        made.append((images, targets.to(torch.uint8), [str(i) for i in range(batch_size)]))
    return made


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def recipe_of(batch_size: int, augment: Sequence[object] = ()) -> Recipe:
    return Recipe.model_validate(
        {
            "epochs": 1,
            "batch_size": batch_size,
            "augment": augment,
            "optimizer": {"name": "sgd", "lr": LR, "momentum": MOMENTUM},
            "schedule": {"name": "poly", "power": POWER},
        }
    )


def cross_entropy(recipe: Recipe, num_classes: int = NUM_CLASSES) -> Loss:
    return build_loss(recipe.loss, num_classes, CPU, recipe.aux_weight)


def begun(net: nn.Module, recipe: Recipe, num_epochs: int, steps: int) -> TrainState:
    model = Segmenter(net, IMAGENET, Geometry(32, 32))
    return TrainState(
        model=model,
        optimizer=build_optimizer(recipe, model.net),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        num_steps=num_epochs * steps,
        steps_per_epoch=steps,
        losses=torch.zeros(steps),
        counts=torch.zeros(4, NUM_CLASSES, dtype=torch.int64),
        clock=Clock(),
    )


def harness(state: TrainState, batches: object, recipe: Recipe, heartbeat: Beat) -> Epoch:
    """Return a function that trains one epoch as a case does and returns its mean loss."""
    numerics = Numerics("cpu", micro_batch=recipe.micro_batch, threads=torch.get_num_threads())

    def beat() -> None:
        heartbeat(step=state.step)

    setup = Setup(CPU, numerics, NUM_CLASSES, cross_entropy(recipe), beat)

    def epoch() -> float:
        state.begin_epoch()
        train_epoch(state, batches, recipe, setup)
        return state.losses.mean().item()

    return epoch


def by_hand(net: nn.Module, batches: Batches, num_epochs: int) -> Epoch:
    """Return a function that does the same without the harness."""
    mean = 255 * torch.tensor(IMAGENET.mean).view(1, 3, 1, 1)
    std = 255 * torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    optimizer = torch.optim.SGD(net.parameters(), LR, momentum=MOMENTUM)
    num_steps, step = num_epochs * len(batches), 0

    def epoch() -> float:
        nonlocal step
        net.train()
        total = torch.zeros(())
        for images, targets, _ in batches:
            optimizer.param_groups[0]["lr"] = LR * (1 - step / num_steps) ** POWER
            image = images.float().sub_(mean).div_(std)
            loss = F.cross_entropy(net(image), targets.long(), ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        return total.item() / len(batches)

    return epoch


@pytest.fixture
def heartbeat(tmp_path: Path) -> Iterator[Heartbeat]:
    """Return a heartbeat for a folder that is locked like that of a running case."""
    folder = CaseFolder(tmp_path / "case")
    with folder.hold() as held:
        yield Heartbeat(held, lambda: False)


@pytest.mark.parametrize(
    ("build", "batch_size", "steps", "rounds", "limit"),
    [
        pytest.param(unet, 2, 1, 21, 1.05, id="unet"),
        pytest.param(Stub, 8, 2, 40, 1.10, id="stub"),
    ],
)
def test_loop_against_by_hand(
    build: Callable[[], nn.Module],
    batch_size: int,
    steps: int,
    rounds: int,
    limit: float,
    heartbeat: Heartbeat,
    benchmark: BenchmarkFixture,
) -> None:
    batches, recipe = in_memory(steps, batch_size), recipe_of(batch_size)
    num_epochs = rounds + 2  # the first compares losses, the second warms up
    state = begun(seeded(build), recipe, num_epochs, steps)
    ours = harness(state, batches, recipe, heartbeat)
    theirs = by_hand(seeded(build), batches, num_epochs)
    assert ours() == pytest.approx(theirs(), rel=1e-3)  # both do the same work
    seconds = in_turn(benchmark, {"harness": ours, "by hand": theirs}, rounds)
    found = ratio(seconds["harness"], seconds["by hand"])
    show(benchmark, ratio=found)
    assert found.value <= limit


def test_real_images_against_memory(
    heartbeat: Heartbeat,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    benchmark: BenchmarkFixture,
) -> None:
    if not CAMVID.is_dir():
        pytest.skip("needs the real images of ../shared, which are not here")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    batch_size, num_images, rounds = 8, 120, 7
    crop = {"RandomCrop": {"height": HEIGHT, "width": WIDTH}}
    recipe = recipe_of(batch_size, [{"HorizontalFlip": {"p": 0.5}}, crop])
    dataset = open_dataset("camvid", "camvid", None, {"partial": True}, {"camvid": CAMVID})
    images = TrainImages(dataset, dataset.samples("train")[:num_images], recipe, seed=0)
    keep_decoded(images, "disk", "train", 2)
    loader, sampler = train_loader(images, batch_size, 0, Loading())
    steps = len(sampler)
    repeated = [next(iter(loader))] * steps
    real_state = begun(seeded(Stub), recipe, rounds + 1, steps)
    from_files = harness(real_state, loader, recipe, heartbeat)
    from_memory = harness(
        begun(seeded(Stub), recipe, rounds + 1, steps), repeated, recipe, heartbeat
    )

    def next_epoch() -> None:
        sampler.epoch = real_state.step // steps
        from_files()

    seconds = in_turn(benchmark, {"real": next_epoch, "memory": from_memory}, rounds)
    found = ratio(seconds["real"], seconds["memory"])
    waited = real_state.clock.seconds["data_wait"] / real_state.clock.seconds["training"]
    show(benchmark, ratio=found, data_wait_share=round(waited, 4))
    assert found.value <= 1.15


def test_share_of_prediction_and_counting(
    heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch, benchmark: BenchmarkFixture
) -> None:
    """Measure the time between the logits and the loss: prediction, counts, confusion."""
    batches, rounds = in_memory(num=2, batch_size=2), 9
    model = Segmenter(seeded(unet), IMAGENET, Geometry(32, 32))
    loss_fn = cross_entropy(recipe_of(2))
    predict, given, counting, shares = inference.predict, [], [], []

    def noted_predict(*args: object) -> Tensor:
        logits = predict(*args)
        given.append(time.perf_counter())
        return logits

    class NotedLoss:
        weights = staticmethod(loss_fn.weights)

        def totals(self, logits: Tensor, target: Tensor) -> Tensor:
            counting.append(time.perf_counter() - given[-1])
            return loss_fn.totals(logits, target)

    monkeypatch.setattr(inference, "predict", noted_predict)

    def score() -> None:
        counting.clear()
        setup = Setup(CPU, Numerics("cpu"), NUM_CLASSES, NotedLoss(), heartbeat)
        counts = inference.evaluate(model, batches, Evaluation(split="val"), setup)
        assert len(counting) == len(batches)
        shares.append(sum(counting) / counts.seconds)

    in_turn(benchmark, {"evaluation": score}, rounds)
    found = median(shares[1:])
    show(benchmark, share=found, counting_ms_a_batch=round(1000 * statistics.median(counting), 2))
    assert found.value <= 0.06


def test_epoch_time_against_wall_clock(heartbeat: Heartbeat, benchmark: BenchmarkFixture) -> None:
    """Compare the reported time of an epoch of sleeps with the wall clock."""
    steps, rounds = 10, 3
    recipe = recipe_of(2)
    [batch] = in_memory(1, 2, (32, 32))

    class Sleeping:
        def __iter__(self) -> Iterator[object]:
            slept.append(0.0)
            for _ in range(steps):
                start = time.perf_counter()
                time.sleep(SLEEP_S)  # at least: a busy machine wakes late
                slept[-1] += time.perf_counter() - start
                yield batch

    state = begun(seeded(lambda: Sleepy(NUM_CLASSES)), recipe, rounds + 1, steps)
    reported, waited, slept = [], [], []
    train = harness(state, Sleeping(), recipe, heartbeat)

    def epoch() -> None:
        train()
        reported.append(state.clock.seconds["training"])
        waited.append(state.clock.seconds["data_wait"])

    seconds = in_turn(benchmark, {"wall clock": epoch}, rounds)
    found = ratio(reported[1:], seconds["wall clock"])
    waits = ratio(waited, slept)
    show(benchmark, reported_by_wall_clock=found, data_wait_by_sleep=waits)
    assert found.value == pytest.approx(1, abs=0.01)
    assert waits.value == pytest.approx(1, abs=0.01)


SLEEPY = """
name: sleepy
datasets:
  shapes: {size: [32, 32], num_train: 40, num_val: 4}
models:
  sleepy: {arch: "benchmarks.test_training:Sleepy"}
recipe: {epochs: 4, batch_size: 2}
"""


def test_recorded_epoch_time_against_wall_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: BenchmarkFixture
) -> None:
    """Compare the epoch time in a case's record with the times its sleeping network recorded.

    An epoch lasts from its first call of the network to the first call of the validation after it.
    """
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Sleepy, "calls", [])
    file = tmp_path / "sleepy.yaml"
    file.write_text(SLEEPY)
    suite = load(file).suite
    [case] = expand(suite)
    task = Task(case, tmp_path / "run", suite.scored, suite.splits.select, "none", suite.cache)
    options = Options(device="cpu", loader_workers=0)
    outcome = benchmark.pedantic(run_case, (task, options), rounds=1)
    record = read_record(task.folder)
    assert outcome.status == "ok", outcome.reason
    assert record is not None
    assert record.training is not None
    walls = wall_clock(Sleepy.calls)
    assert len(walls) == 4
    found = ratio([record.training.epoch_s], [statistics.median(walls[1:])])
    show(benchmark, recorded_s=record.training.epoch_s, recorded_by_wall_clock=found.value)
    assert found.value == pytest.approx(1, abs=0.01)


def wall_clock(calls: Sequence[tuple[bool, float]]) -> list[float]:
    """Return the seconds from each epoch's first training call to the validation after it."""
    begins = [now for i, (training, now) in enumerate(calls) if training and not was(calls, i)]
    ends = [now for i, (training, now) in enumerate(calls) if not training and was(calls, i)]
    # Measuring the complexity calls the network once more: a begin without an end.
    return [end - begin for begin, end in zip(begins, ends, strict=False)]


def was(calls: Sequence[tuple[bool, float]], i: int) -> bool:
    """Return whether the previous call was in training."""
    return i > 0 and calls[i - 1][0]


def test_known_tricks(benchmark: BenchmarkFixture) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, NUM_CLASSES, HEIGHT, WIDTH, generator=generator)
    [(_, target, _)] = in_memory(1, 8)
    pred = logits.max(1).indices

    def gathered() -> Tensor:
        valid = target < NUM_CLASSES
        cell = target[valid].long() * NUM_CLASSES + pred[valid]
        return torch.bincount(cell, minlength=NUM_CLASSES**2)

    def extra_row() -> Tensor:
        return count_pixels(pred, target, NUM_CLASSES)

    assert extra_row()[:, :-1].sum(0).flatten().equal(gathered())
    arms: Mapping[str, Callable[[], object]] = {
        "argmax": lambda: logits.argmax(1),
        "max": lambda: logits.max(1).indices,
        "gathered": gathered,
        "extra row": extra_row,
    }
    seconds = in_turn(benchmark, arms, rounds=25)
    predicting = ratio(seconds["argmax"], seconds["max"])
    counting = ratio(seconds["gathered"], seconds["extra row"])
    show(benchmark, argmax_by_max=predicting, gathered_by_extra_row=counting)
    assert predicting.value >= 1
    assert counting.value >= 1
