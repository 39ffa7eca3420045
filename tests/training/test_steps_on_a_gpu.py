"""No step of training or evaluation waits for the GPU or mixes devices, for any architecture.

It runs on fake CUDA tensors, which have a device and a shape but no values; see fake_gpu.
"""

from collections.abc import Callable

import pytest
import torch
from fake_gpu import CUDA, ReadBack, fake_gpu, on_gpu
from torch import Tensor, nn

from bench.evaluation.confusion import count_pixels, per_class
from bench.evaluation.inference import predict
from bench.evaluation.setup import Setup
from bench.machine.clock import Clock
from bench.machine.numerics import Numerics, Precision
from bench.models.geometry import Geometry
from bench.models.networks import build_network
from bench.models.probing import find_geometry
from bench.models.segmenter import IMAGENET, Segmenter
from bench.suite.evaluation import Evaluation
from bench.suite.model import ModelSpec
from bench.suite.optimizer import SGD
from bench.suite.recipe import Recipe
from bench.training import loop
from bench.training.loop import TrainState, train_epoch
from bench.training.losses import build_loss
from bench.training.optimizer import build_optimizer
from custom_models import ARCHITECTURES

NUM_CLASSES, BATCH, SIZE = 6, 4, 64
OTHERS = (
    {"arch": "smp/unet", "encoder": "resnet18"},
    {"arch": "smp/pspnet", "encoder": "resnet18"},
    {"arch": "smp/deeplabv3plus", "encoder": "resnet18"},
    {"arch": "torchvision/deeplabv3_resnet50", "aux_loss": True},
    {"arch": "timm/resnet18"},
)
ALL = [*({"arch": f"custom/{name}"} for name in ARCHITECTURES), *OTHERS]
QUICK = ("custom/fcn", "custom/enet", "custom/unet_valid", "smp/unet", "timm/resnet18")


@pytest.fixture(autouse=True)
def _without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what asks the driver, and the look at the losses once per epoch."""
    monkeypatch.setattr(loop, "synchronize", lambda device: None)
    monkeypatch.setattr(loop, "idle_between", lambda batches, device, clock: clock.waiting(batches))
    monkeypatch.setattr(TrainState, "require_finite", lambda self, first, world: None)


def train(net: nn.Module, geometry: Geometry, precision: Precision, **recipe: object) -> None:
    """Train a step and score a batch."""
    asked = Recipe.model_validate({"steps": 1, "batch_size": BATCH} | recipe)
    model = Segmenter(net, IMAGENET, geometry)
    on_gpu(model)
    is_fused = not isinstance(asked.optimizer, SGD)  # which has no fake form
    numerics = Numerics("cuda", precision, micro_batch=asked.micro_batch)
    model.layout = torch.channels_last  # of the images; fake weights cannot be laid out anew
    loss_fn = build_loss(asked.loss, NUM_CLASSES, CUDA, asked.aux_weight)
    setup = Setup(CUDA, numerics, NUM_CLASSES, loss_fn)
    state = TrainState(
        model=model,
        optimizer=build_optimizer(asked, net, fused=is_fused or None),
        scaler=torch.amp.GradScaler("cuda", enabled=precision == "fp16"),
        num_steps=1,
        steps_per_epoch=1,
        losses=torch.zeros(1, device=CUDA),
        counts=torch.zeros(4, NUM_CLASSES, dtype=torch.int64, device=CUDA),
        clock=Clock(),
    )
    image = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8)
    target = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.uint8)
    before = [weight.grad for weight in net.parameters()]
    assert before == [None] * len(before)
    train_epoch(state, [(image, target, ["a"] * BATCH)], asked, setup)
    assert state.step == 1
    model.eval()
    evaluation = Evaluation(split="val", flip=True, scales=(1.0, 1.5))
    with torch.inference_mode():
        logits = predict(model, image.to(CUDA), (SIZE, SIZE), evaluation, setup)
        counts = count_pixels(logits.max(1).indices, target.to(CUDA), NUM_CLASSES)
        assert per_class(counts).device.type == "cuda"
        loss_fn.totals(logits, target.to(CUDA).long())


def trained(spec: dict, precision: Precision, **recipe: object) -> None:
    asked = ModelSpec.model_validate(spec)
    with torch.device("meta"):
        geometry = find_geometry(build_network(asked, NUM_CLASSES), asked, NUM_CLASSES)
    with fake_gpu():
        train(build_network(asked, NUM_CLASSES), geometry, precision, **recipe)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=spec["arch"], marks=[] if spec["arch"] in QUICK else pytest.mark.slow)
        for spec in ALL
    ],
)
def test_every_architecture(spec: dict) -> None:
    trained(spec, "fp32")


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("spec", [ALL[0], *OTHERS[:1]], ids=lambda spec: spec["arch"])
def test_every_precision(spec: dict, precision: Precision) -> None:
    trained(spec, precision, clip_grad=1.0, accumulate=2)


@pytest.mark.parametrize(
    ("recipe", "precision"),
    [
        ({"optimizer": "adamw", "loss": ["cross_entropy", "dice"]}, "fp16"),
        ({"optimizer": {"name": "sgd", "momentum": 0.9}, "loss": "focal"}, "bf16"),
        ({"loss": {"name": "cross_entropy", "class_weights": [1, 2, 3, 4, 5, 6]}}, "fp16"),
        ({"loss": {"name": "cross_entropy", "label_smoothing": 0.1}, "schedule": "poly"}, "fp32"),
    ],
)
def test_every_loss_and_optimizer(recipe: dict, precision: Precision) -> None:
    trained({"arch": "custom/fcn"}, precision, **recipe)


class Planted(nn.Module):
    """A network with a fault."""

    def __init__(self, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.fault = nn.Conv2d(3, NUM_CLASSES, 1), fault

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.fault(image))


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x * x.mean().item(),
        lambda x: x * float(x.max()),
        lambda x: x if x.mean() > 0 else -x,
        lambda x: x + x.cpu().mean().to(x.device),
        lambda x: x + x.to("cpu").to(x.device),
        lambda x: x * len(x[x > 0]),
        lambda x: x + torch.zeros(x.shape),
        lambda x: x * torch.ones(1, 3, 1, 1),
        lambda x: torch.cat((x[:, :2], torch.zeros(len(x), 1, *x.shape[2:])), 1),
        lambda x: nn.functional.conv2d(x, torch.ones(3, 3, 1, 1)),
    ],
    ids=["item", "float", "if", "cpu", "to", "mask", "zeros", "ones", "cat", "weights"],
)
def test_planted_faults_are_found(fault: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises((ReadBack, RuntimeError)) as error, fake_gpu():
        train(Planted(fault), Geometry(1, 1), "fp32")
    text = f"{type(error.value).__name__} {error.value}"
    known = ("ReadBack", "DataDependent", "DynamicOutputShape", "same device")
    assert any(sign in text for sign in known), text


def test_a_read_back_in_the_loop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
        print(f"{float(logits.sum()):.2f}")  # as one looks at a loss
        return real(logits, target, num_classes)

    real = loop._counts
    monkeypatch.setattr(loop, "_counts", counted)
    with pytest.raises((ReadBack, RuntimeError), match="value was read|_local_scalar"):
        trained({"arch": "custom/fcn"}, "fp32")


def test_a_scaler_without_a_fused_optimizer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = build_optimizer

    def plain(recipe: Recipe, net: nn.Module, fused: bool | None = None) -> torch.optim.Optimizer:
        return real(recipe, net)

    monkeypatch.setitem(globals(), "build_optimizer", plain)
    with pytest.raises((ReadBack, RuntimeError), match="value was read|_local_scalar"):
        trained({"arch": "custom/fcn"}, "fp16")


def test_gradients_are_those_of_torch() -> None:
    """The detour for gradients calls the functions that torch would."""
    from fake_gpu import backward

    torch.manual_seed(0)
    net = build_network(ModelSpec(arch="custom/enet"), NUM_CLASSES).eval()
    image = torch.rand(2, 3, 64, 64)
    net(image).square().mean().backward()
    expected = [weight.grad.clone() for weight in net.parameters() if weight.grad is not None]
    net.zero_grad()
    backward(net(image).square().mean())
    found = [weight.grad for weight in net.parameters() if weight.grad is not None]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
