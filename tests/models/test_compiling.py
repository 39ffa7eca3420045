"""Compiled networks: one graph each, nothing of the model changed, equal numbers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.models import compiling
from bench.models.complexity import backward
from bench.models.segmenter import Segmenter, build_model
from bench.suite.load import load
from bench.suite.model import ModelSpec
from custom_models import ARCHITECTURES

SUITE = load(Path(__file__).parents[2] / "suites" / "camvid_all.yaml").suite
QUICK = ("fcn",)  # the others are slow
IMAGE = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _forget() -> None:
    torch.compiler.reset()


class Branches(nn.Module):
    """A network whose graph depends on values."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        if image.mean() > 0:
            image = 2 * image
        return self.conv(image)


class Small(nn.Module):
    """A network with running statistics and random numbers that compiles quickly."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.last = nn.Dropout2d(0.2), nn.Conv2d(8, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(image)).relu()))


SMALL = ModelSpec(arch=f"{__name__}:Small")


def built(spec: ModelSpec) -> Segmenter:
    torch.manual_seed(0)
    model, _ = build_model(spec.model_copy(update={"weights": None}), 11)
    return model


def compile_step(model: Segmenter, image: Tensor) -> None:
    model.train().compile_for("default", image, lambda image: backward(model(image)), "it")


def marked(names: "list[str]") -> list:
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", marked(list(SUITE.models)))
def test_every_network_is_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setattr("bench.models.segmenter.RUNS", 1)
    model = built(SUITE.models[name])
    side = model.geometry.padded(64)
    image = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    compile_step(model, image)
    assert model.compiled is not None
    with torch.inference_mode():
        model.eval().compile_for("default", image, model, "it")


@pytest.mark.parametrize("name", marked(list(ARCHITECTURES)))
def test_inductor_agrees(name: str) -> None:
    spec = ModelSpec.model_validate({"arch": f"custom/{name}"})
    plain, fast = built(spec).lay_out("channels_last"), built(spec).lay_out("channels_last")
    side = plain.geometry.padded(64)
    image = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    compile_step(fast, image)
    heads = []
    for model in (plain, fast):
        torch.manual_seed(1)
        out = model.train()(image)
        head = out if isinstance(out, Tensor) else out["out"]
        target = torch.arange(head[:, 0].numel()).view(head[:, 0].shape) % 11
        F.cross_entropy(head, target).backward()
        heads.append(head)
    if not any(isinstance(m, nn.Dropout | nn.Dropout2d) for m in plain.modules()):
        assert torch.allclose(*heads, rtol=1e-3, atol=1e-3)  # inductor draws other random numbers
        for one, other in zip(plain.net.parameters(), fast.net.parameters(), strict=True):
            if one.grad is not None and other.grad is not None:
                scale = one.grad.abs().max() + 1
                assert torch.allclose(one.grad / scale, other.grad / scale, atol=5e-3)
    fast.net.load_state_dict(plain.net.state_dict())
    with torch.inference_mode():
        fast.eval().compile_for("default", image, fast, "it")
        assert torch.allclose(plain.eval()(image), fast(image), rtol=1e-3, atol=1e-3)


def test_compiling_changes_nothing_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    model = built(SMALL)
    modules, hooks = list(model.modules()), []
    model.net.register_forward_hook(lambda *_: hooks.append(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    compile_step(model, IMAGE)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(model.modules()) == modules
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    num = len(hooks)
    model(IMAGE)
    assert len(hooks) == num + 1


def test_other_shapes_run_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    model = built(SMALL)
    compile_step(model, IMAGE)
    calls: list[torch.Size] = []
    monkeypatch.setattr(model, "compiled", lambda image: calls.append(image.shape))
    model(IMAGE)
    model(IMAGE[:1])
    model.eval()(IMAGE)
    assert calls == [IMAGE.shape]


def test_what_breaks_the_graph_is_named() -> None:
    model = built(ModelSpec.model_validate({"arch": f"{__name__}:Branches"}))
    message = (
        r"^compile: it cannot be compiled as one graph: Data-dependent branching "
        r"\(test_compiling\.py:\d+: if image\.mean\(\) > 0:\)\. Change the network, or leave"
    )
    with pytest.raises(UserError, match=message):
        compile_step(model, IMAGE)
