"""Properties of every network in custom_models; new files are tested automatically."""

import ast
import copy
import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bench.models.geometry import Geometry, declared
from custom_models import ARCHITECTURES, Architecture
from custom_models.fcn32s import VGG16
from custom_models.initialisation import kaiming

FOLDER = ROOT / "custom_models"
NO_NETWORKS = {"__init__", "initialisation", "encoder"}

NAMES = list(ARCHITECTURES)
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("fcn", {"direct_head": True}),
    ("fcn8s", {"at_once": True}),
    ("erfnet", {"head": "eighth"}),
    ("darrennet", {"transfer": True}),
    ("unet", {"bias": True}),
    ("resnet_fcn", {"encoder": "resnet34", "freeze_encoder": True}),
    ("pspnet", {"encoder": "resnet50", "aux_channels": None}),
    ("deeplabv3_deconv", {"freeze_encoder": False}),
]
ENTRIES = [(name, {}) for name in NAMES] + VARIANTS
IDS = ["-".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in ENTRIES]

PADDED_BY_100 = ("fcn32s", "fcn16s", "fcn8s")  # 17 GMAC for the smallest image
WITHOUT_GRADIENT = {
    ("erfnet", "full"): ["encoder.output_conv.weight", "encoder.output_conv.bias"],  # 1st stage's
}
RATES = {"enet": 1e-2, "erfnet": 1e-2, "darrennet": 1e-2}  # they learn slowly at small rates
FP32 = 2e-5  # of the largest logit: the same sums in another order
BF16 = 0.05  # of the mean logit: 8 bits per number, dozens of layers
BF16_UNPOOLED = 0.2  # rounding changes the winners of a max-pool, so values land on other pixels


def build(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    net = importlib.import_module(f"custom_models.{name}").build(num_classes, **options)
    assert isinstance(net, nn.Module)
    return net


def on_meta(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return build(name, num_classes, options)


def geometry(net: nn.Module) -> Geometry:
    declares = declared(net)
    assert declares is not None
    return declares


def side(net: nn.Module, size: int) -> int:
    """Return the smallest valid side length of at least `size`, or what margins need if larger."""
    g = geometry(net)
    return g.padded(max(1, size - 2 * g.margin))


def images(batch: int, size: int) -> Tensor:
    """Return coarse patterns of different brightness, as smooth as photographs."""
    patterns = F.interpolate(torch.randn(batch, 3, 4, 4), (size, size), mode="bilinear")
    return torch.randn(batch, 3, 1, 1) + patterns + 0.1 * torch.randn(batch, 3, size, size)


def apart(logits: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest logit."""
    return float((logits - expected).abs().max() / expected.abs().max())


def heads(out: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else list(out.values())


@pytest.mark.parametrize("num_classes", [1, 2, 21])
@pytest.mark.parametrize(("name", "options"), ENTRIES, ids=IDS)
def test_logits_have_the_size_that_is_declared(
    name: str, options: dict[str, Any], num_classes: int
) -> None:
    """Run on the meta device, where large shapes cost nothing."""
    net = on_meta(name, num_classes, options).eval()
    g = geometry(net)
    assert (g.minimum - g.remainder) % g.multiple == 0 or g.multiple == 1
    smallest, step = g.padded(1), g.multiple
    assert smallest == max(g.minimum, g.padded(1))
    sides = [smallest, smallest + step, g.padded(97), g.padded(480)]
    for height, width in zip(sides, [*sides[1:], smallest], strict=True):
        expected = (2, num_classes, g.logits_size(height), g.logits_size(width))
        with torch.no_grad():
            out = net(torch.zeros(2, 3, height, width, device="meta"))
        assert out.shape == expected
        assert out.dtype == torch.float32
    for head in heads(net.train()(torch.zeros(2, 3, g.padded(65), g.padded(97), device="meta"))):
        assert head.shape == (
            2,
            num_classes,
            g.logits_size(g.padded(65)),
            g.logits_size(g.padded(97)),
        )


@pytest.mark.parametrize(("name", "options"), ENTRIES, ids=IDS)
def test_every_trainable_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    """Run on the meta device: a parameter gets a gradient if the graph leads to it."""
    net = on_meta(name, 3, options).train()
    size = side(net, 33)
    sum(head.sum() for head in heads(net(torch.zeros(2, 3, size, size, device="meta")))).backward()
    allowed = []
    if name == "erfnet" and options.get("head", "full") == "full":
        allowed = WITHOUT_GRADIENT["erfnet", "full"]
    trainable = {key: p for key, p in net.named_parameters() if p.requires_grad}
    assert [key for key, p in trainable.items() if p.grad is None] == allowed
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)


@pytest.mark.parametrize(("name", "options"), ENTRIES, ids=IDS)
def test_steps_lower_the_loss_on_one_batch(name: str, options: dict[str, Any]) -> None:
    num_classes = 21
    net = build(name, num_classes, options).train()
    parameters = [p for p in net.parameters() if p.requires_grad]
    size = side(net, max(32, 2 * geometry(net).multiple))
    optimizer: torch.optim.Optimizer
    if name in PADDED_BY_100:  # one image, as their authors train them: 2 s a step
        batch, steps, optimizer = 1, 3, torch.optim.SGD(parameters, 1e-3, fused=True)
    else:
        rate = RATES.get(name, 5e-4)
        batch, steps, optimizer = 2, 5, torch.optim.Adam(parameters, rate, fused=True)
    image = images(batch, size)
    half = torch.arange(geometry(net).logits_size(size)) * 2 >= geometry(net).logits_size(size)
    quarters = half[:, None].long() + 2 * half.long()
    target = torch.tensor([0, 1, 1, 1])[quarters] * (num_classes - 1)
    losses = []
    for step in range(steps):
        out = heads(net(image))
        loss = sum(F.cross_entropy(head, target.expand(batch, -1, -1)) for head in out)
        losses.append(float(loss.detach()))
        if step < steps - 1:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(name, options, [round(x, 4) for x in losses])
    assert min(losses[-2:]) < 0.9 * losses[0]


@dataclass
class Sample:
    """A network that has seen a batch, and its logits for one image."""

    name: str
    options: dict[str, Any]
    net: nn.Module
    image: Tensor
    logits: Tensor


@pytest.fixture(scope="module", params=ENTRIES, ids=IDS)
def sample(request: pytest.FixtureRequest) -> Sample:
    """Return a network in eval mode with random weights and BatchNorm statistics.

    Its weights are drawn by He initialisation, so that score layers do not start at zero and
    features are more than biases. BatchNorm statistics are random, so that no two layers agree.
    """
    name, options = request.param
    net = build(name, 5, options).eval()
    for part in net.children():
        if not isinstance(part, VGG16):  # which already has them
            kaiming(part)
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    size = side(net, 33)
    image = images(1, size)
    with torch.no_grad():
        logits = net(image)
    assert logits.std(dim=(2, 3)).max() > 0.1 * logits.abs().max() > 0  # more than biases
    given = geometry(net).logits_size(size)
    assert logits.shape == (1, 5, given, given)
    return Sample(name, options, net, image, logits)


def test_eval_is_deterministic(sample: Sample) -> None:
    drops = [m for m in sample.net.modules() if isinstance(m, _DropoutNd)]
    assert not any(m.training for m in drops)
    with torch.no_grad():
        assert torch.equal(sample.net(sample.image), sample.logits)


def test_eval_takes_each_image_by_itself(sample: Sample) -> None:
    torch.manual_seed(1)
    batch = torch.cat([sample.image, images(1, sample.image.shape[-1])])
    with torch.no_grad():
        assert apart(sample.net(batch)[:1], sample.logits) < FP32


def test_the_exported_program_gives_the_same_logits(sample: Sample) -> None:
    program = torch.export.export(sample.net, (sample.image,))
    with torch.no_grad():
        logits = program.module()(sample.image)
    atol = FP32 * float(sample.logits.abs().max())
    torch.testing.assert_close(logits, sample.logits, rtol=0, atol=atol)


def test_channels_last_gives_the_same_logits(sample: Sample) -> None:
    net = copy.deepcopy(sample.net).to(memory_format=torch.channels_last)
    with torch.no_grad():
        logits = net(sample.image.contiguous(memory_format=torch.channels_last))
    assert apart(logits, sample.logits) < FP32


def test_bf16_agrees_with_fp32(sample: Sample) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = sample.net(sample.image)
    difference = (logits.float() - sample.logits).abs().mean() / sample.logits.abs().mean()
    assert 0 < difference < (BF16_UNPOOLED if sample.name == "enet" else BF16)


def test_weights_survive_a_file(sample: Sample, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save_file(sample.net.state_dict(), file)
    fresh = on_meta(sample.name, 5, sample.options).eval()
    state = load_file(file)
    file.unlink()
    fresh.load_state_dict(state, strict=True, assign=True)
    assert not any(t.is_meta for t in (*fresh.parameters(), *fresh.buffers()))
    assert all(torch.equal(value, state[key]) for key, value in sample.net.state_dict().items())
    with torch.no_grad():  # a file aligns tensors differently, so sums run in another order
        assert apart(fresh(sample.image), sample.logits) < FP32


def test_every_file_is_listed() -> None:
    files = {file.stem for file in FOLDER.glob("*.py")} - NO_NETWORKS
    assert files == set(ARCHITECTURES)
    assert all(key == architecture.name for key, architecture in ARCHITECTURES.items())


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=NAMES)
def test_options_are_those_of_the_builder(architecture: Architecture) -> None:
    """Compare with the source text, since `options` inspects the function itself."""
    tree = ast.parse((FOLDER / f"{architecture.name}.py").read_text())
    [arguments] = [
        node.args
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "build"
    ]
    names = [argument.arg for argument in arguments.args]
    assert names[0] == "num_classes"
    defaults = [ast.literal_eval(default) for default in arguments.defaults]
    assert architecture.options == dict(zip(names[1:], defaults, strict=True))
    assert arguments.vararg is arguments.kwarg is None


def docstrings(name: str) -> str:
    """Join the docstrings of a file and its classes into one line."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    nodes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    return " ".join(" ".join((ast.get_docstring(node) or "").split()) for node in nodes)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=NAMES)
def test_paper_and_input_rule_are_named(architecture: Architecture) -> None:
    text = docstrings(architecture.name)
    assert any(word in text for word in ("any size", "multiples of", "a multiple of"))
    assert any(word in text for word in ("arXiv", "doi", "report"))
    assert any(word in architecture.paper for word in ("arXiv", "10.", "report"))
    names = re.findall(r"(\w+)(?:, \w+)* and \w+,", architecture.paper)
    numbers = re.findall(r"\d{4}\.\d{5}|10\.\d+/\S+", architecture.paper)
    assert [word for word in numbers if word not in text] == []
    assert any(name in text for name in names) or "student reports" in text


def test_the_list_needs_no_torch() -> None:
    code = "import sys, custom_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
