"""The command `selftest`: short checks with a known answer."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.evaluation import scores
from bench.evaluation.confusion import count_pixels, per_class
from bench.machine.device import set_precision
from bench.machine.random_state import seed_everything
from bench.models.networks import RUN_ERRORS
from bench.models.segmenter import Segmenter, build_model
from bench.models.weight_files import read_weights
from bench.runner.run_case import run_case
from bench.runner.task import Options, Task
from bench.suite.load import load
from bench.suite.loss import CrossEntropy
from bench.suite.model import ModelSpec
from bench.text import first_line
from bench.training.losses import build_loss, mean
from custom_models import ARCHITECTURES

NUM_CLASSES = 5
SIZE = (32, 32)
NUM_STEPS = 3
LR = 1e-4  # small enough that the loss falls at once, whatever the network
TOLERANCE = 2e-3  # of fp32 on two devices, relative to the largest logit
RESUME_TOLERANCE = 0.01  # where sums have no fixed order, relative to how far training went
OTHERS = (  # one network of each library
    {"arch": "smp/unet", "encoder": "resnet18"},
    {"arch": "timm/resnet18"},
    {"arch": "torchvision/lraspp_mobilenet_v3_large"},
)
SUITE = """
name: selftest
datasets: {shapes: {size: [32, 32], num_train: 12, num_val: 4}}
models: {enet: {arch: custom/enet}}
recipe:
  {epochs: 3, batch_size: 4, precision: fp32, augment: [flip], optimizer: {name: sgd, lr: 0.05}}
"""


class Wrong(Exception):
    """A check had a wrong answer."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    passed: bool
    detail: str
    seconds: float


def selftest(device: torch.device) -> Iterator[Check]:
    """Train every architecture a few steps, compare devices, resume a run, score known pixels."""
    set_precision("fp32")
    specs = [{"arch": f"custom/{name}"} for name in ARCHITECTURES] + list(OTHERS)
    yield _check("metrics", partial(_known_scores, device))
    yield _check("resume", partial(_resumed_equals_uninterrupted, device))
    for spec in specs:
        yield _check(spec["arch"], partial(_trains, spec, device))


def _check(name: str, answer: Callable[[], str]) -> Check:
    start = time.perf_counter()
    try:
        passed, detail = True, answer()
    except (Wrong, UserError, *RUN_ERRORS) as error:
        passed, detail = False, f"{type(error).__name__}: {first_line(error)}"
    return Check(name, passed, detail, time.perf_counter() - start)


def _trains(asked: dict[str, str], device: torch.device) -> str:
    """Train a few steps on one batch, then compare the logits with the CPU's."""
    spec = ModelSpec.model_validate(asked)
    seed_everything(0)
    model, _ = build_model(spec, NUM_CLASSES)
    has_norm = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    image, target = _batch(2 if has_norm else 1)  # the largest networks have none
    losses = _losses(model.to(device), image.to(device), target.to(device))
    if not all(map(torch.isfinite, losses)):
        raise Wrong(f"the loss is not finite: {_listed(losses)}")
    if losses[-1] >= losses[0]:
        raise Wrong(f"the loss does not fall: {_listed(losses)}")
    fell = f"loss {float(losses[0]):.4f} to {float(losses[-1]):.4f}"
    if device.type == "cpu":
        return fell
    return f"{fell}, {_agreement(model, image, device):.1e} from the CPU"


def _batch(num: int) -> tuple[Tensor, Tensor]:
    """Make images (N, 3, H, W) uint8 of coloured squares, and their classes (N, H, W) int64."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, NUM_CLASSES, (num, 4, 4), generator=generator)
    target = cells.repeat_interleave(SIZE[0] // 4, 1).repeat_interleave(SIZE[1] // 4, 2)
    colours = torch.randint(0, 256, (NUM_CLASSES, 3), dtype=torch.uint8, generator=generator)
    return colours[target].permute(0, 3, 1, 2).contiguous(), target


def _losses(model: Segmenter, image: Tensor, target: Tensor) -> list[Tensor]:
    """Train on one batch with the same dropout in each step, so that losses can be compared."""
    loss_fn = build_loss(CrossEntropy(), NUM_CLASSES, image.device, aux_weight=0.4)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, LR, fused=True)  # no large temporaries
    target = model.geometry.reduced(target)
    model.train()
    losses = []
    for _ in range(NUM_STEPS):
        seed_everything(1)
        loss = mean(loss_fn.totals(model(image), target), loss_fn.weights(target))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # the memory is used again
        losses.append(loss.detach())
    return losses


@torch.inference_mode()
def _agreement(model: Segmenter, image: Tensor, device: torch.device) -> float:
    """Return the largest difference to the CPU's logits, relative to the largest logit."""
    model.eval()
    found = model(image.to(device)).cpu()
    expected = model.cpu()(image)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < TOLERANCE:
        raise Wrong(f"logits differ from the CPU's by {difference:.1e} of the largest")
    return difference


def _listed(losses: list[Tensor]) -> str:
    return ", ".join(f"{float(loss):.4f}" for loss in losses)


def _resumed_equals_uninterrupted(device: torch.device) -> str:
    """Stop a training in the middle of an epoch, resume it, and compare the weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "selftest.yaml"
        file.write_text(SUITE, encoding="utf-8")
        read = load(file)
        [case] = read.cases()
        task = Task.of(read.suite, case, Path(folder) / "whole")
        options = Options(device=str(device), loader_workers=0, cache="none")
        whole = _weights(task, options)
        beats = iter([False] * 5)
        cut = replace(task, folder=Path(folder) / "cut")
        outcome = run_case(cut, replace(options, should_stop=lambda: next(beats, True)))
        if outcome.status != "interrupted":
            raise Wrong(f"a run that was to stop is {outcome.status}: {outcome.reason}")
        resumed = _weights(cut, options)
    seed_everything(case.seed)
    begun = build_model(case.model, case.dataset.labels.num_classes)[0].net.state_dict()
    apart = _distance(whole, resumed) / _distance(whole, begun)
    if apart > (0 if device.type == "cpu" else RESUME_TOLERANCE):
        raise Wrong(f"weights differ by {apart:.1e} of what was trained after a stop")
    return "weights equal bit for bit" if apart == 0 else f"weights within {apart:.1e}"


def _distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the Euclidean distance of two sets of weights."""
    return math.hypot(*(float((one[key] - other[key]).norm()) for key in one))


def _weights(task: Task, options: Options) -> dict[str, Tensor]:
    outcome = run_case(task, options)
    if outcome.status != "ok":
        raise Wrong(f"a small case {outcome.status}: {outcome.reason}")
    state = read_weights(task.folder / "weights.safetensors")
    return {key: value for key, value in state.items() if value.is_floating_point()}


def _known_scores(device: torch.device) -> str:
    """Score eight pixels, one of them void, by hand: IoU 2/4, 1/2 and 2/3 of three classes."""
    target = torch.tensor([[[0, 0, 0, 1], [1, 2, 2, 255]]], dtype=torch.uint8, device=device)
    pred = torch.tensor([[[0, 0, 2, 1], [0, 2, 2, 1]]], device=device)
    counts = per_class(count_pixels(pred, target, 3)).cpu().numpy()
    found = scores.scores(counts)
    known = {"miou": (2 / 4 + 1 / 2 + 2 / 3) / 3, "pixel_accuracy": 5 / 7}
    for name, value in known.items():
        if abs(found[name] - value) > 1e-12:
            raise Wrong(f"{name} is {found[name]}, not {value}")
    loss = build_loss(CrossEntropy(), 3, device, aux_weight=0.0)
    logits = F.one_hot(pred, 3).permute(0, 3, 1, 2).float()
    total = loss.totals(logits, target.long()).sum()
    by_hand = 7 * torch.tensor(2 + torch.e).log() - 5
    if abs(float(total.cpu() - by_hand)) > 1e-4:
        raise Wrong(f"cross-entropy is {float(total)}, not {float(by_hand)}")
    return f"mIoU {100 * found['miou']:.2f} %, cross-entropy {float(total):.4f}, as by hand"
