"""Whole cases with unusual networks: other outputs, heads, frozen and shared parts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import TINY
from torch import Tensor, nn

from bench.errors import UserError
from bench.models.segmenter import build_model
from bench.models.weight_files import read_weights
from bench.models.weights import load_part
from bench.records.case_folder import CaseFolder
from bench.records.record import read_record
from bench.runner.plan import plan
from bench.runner.run_suite import run_planned
from bench.runner.task import Options
from bench.runner.validate import check
from bench.suite.expand import expand
from bench.suite.load import load
from bench.suite.model import ModelSpec
from custom_models import erfnet, fcn16s, fcn32s

Run = Callable[..., dict[str, CaseFolder]]


@pytest.fixture
def run(write_suite: Callable[..., Path], tmp_path: Path) -> Run:
    """Run a suite's text; return the folder of each model."""

    def run_text(models: str, *settings: str, out: str = "out") -> dict[str, CaseFolder]:
        text = TINY.replace("enet: {arch: custom/enet}", models)
        file = load(write_suite(text), settings)
        cases = expand(file.suite)
        checked = check(file, cases, {}, need_data=True)
        planned = plan(file.suite, cases, tmp_path / out / "tiny", checked)
        for outcome in run_planned(planned, Options(device="cpu")):
            assert outcome.status == "ok", outcome.reason
        return {item.case.model_name: CaseFolder(item.task.folder) for item in planned}

    return run_text


def test_recomputing_activations_changes_no_number(run: Run) -> None:
    kept = run("enet: {arch: custom/enet}", out="kept")["enet"]
    again = run("enet: {arch: custom/enet}", "recipe.memory=checkpoint", out="again")["enet"]
    one, other = read_weights(kept.weights), read_weights(again.weights)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert kept.path.name != again.path.name  # it is part of the id
    record = read_record(again.path)
    assert record is not None
    assert record.case.recipe.memory == "checkpoint"


def test_erfnet_in_two_stages(run: Run) -> None:
    models = """encoder: {arch: custom/erfnet, head: eighth}
  whole: {arch: custom/erfnet, init_from: {model: encoder, part: encoder}}
overrides:
  - {model: whole, recipe: {epochs: 0}}"""
    folders = run(models)
    encoder, whole = (read_weights(folders[name].weights) for name in ("encoder", "whole"))
    taken = {key: value for key, value in whole.items() if key.startswith("encoder.")}
    assert taken.keys() == encoder.keys()
    assert all(torch.equal(encoder[key], value) for key, value in taken.items())
    record = read_record(folders["encoder"].path)
    assert record is not None
    assert record.complexity["num_unreached"] == 0
    assert record.training is not None
    assert record.training.loss is not None
    spec = ModelSpec.model_validate({"arch": "custom/erfnet", "head": "eighth"})
    model, _ = build_model(spec, 6)
    image = torch.randint(0, 256, (1, 3, 20, 36), dtype=torch.uint8)
    assert model.eval()(image).shape == (1, 6, 20, 36)
    assert model.train()(image).shape == (1, 6, 3, 5)
    scored = json.loads(folders["encoder"].evaluation("val").read_text())
    assert scored["num_images"] == 6
    record = read_record(folders["whole"].path)
    assert record is not None
    assert record.model["init_from_unfilled"] == []
    assert record.complexity["num_unreached"] == 129 * 6  # the head trained only in the first stage


def test_a_part_that_is_none_is_found_before_the_parent_trains(run: Run) -> None:
    models = """encoder: {arch: custom/erfnet, head: eighth}
  whole: {arch: custom/erfnet, init_from: {model: encoder, part: encode}}"""
    with pytest.raises(UserError, match="Unknown part 'encode'. Did you mean 'encoder'"):
        run(models)


class Valid(nn.Module):
    """Three convolutions without padding, for images of odd sizes."""

    input_multiple, input_remainder, input_minimum, output_margin = 2, 1, 7, 3

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, num_classes, 3),
        )

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[-1] % 2 == image.shape[-2] % 2 == 1
        logits: Tensor = self.layers(image)
        return logits


def valid(num_classes: int) -> nn.Module:
    return Valid(num_classes)


def test_valid_convolutions_see_mirrored_edges(run: Run) -> None:
    folder = run(f"valid: {{arch: '{__name__}:valid', normalize: none}}")["valid"]
    spec = ModelSpec.model_validate({"arch": f"{__name__}:valid", "normalize": "none"})
    model, _ = build_model(spec, 6)
    model.net.load_state_dict(read_weights(folder.weights))
    image = torch.randint(0, 256, (1, 3, 32, 20), dtype=torch.uint8)
    padded = F.pad(image.float() / 255, (3, 4, 3, 4), mode="reflect")  # 4: to an odd size
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(image), model.net(padded)[..., :32, :20])


class TwoHeads(nn.Module):
    input_multiple = 1

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head, self.aux = nn.Conv2d(8, num_classes, 1), nn.Conv2d(8, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        x = self.conv(image).relu()
        return {"out": self.head(x), "aux": self.aux(x)} if self.training else self.head(x)


def two_heads(num_classes: int) -> nn.Module:
    return TwoHeads(num_classes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda out, aux: {"main": out, "aux": aux},
            'returns main, aux; one head must be called "out"',
        ),
        (
            lambda out, aux: {"out": out, "aux": aux[..., ::2, ::2]},
            "returns logits of 16x16 for",
        ),
        (lambda out, aux: {"out": out, "aux": [aux]}, "list"),
    ],
)
def test_heads_that_are_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., object], message: str
) -> None:
    right = TwoHeads.forward

    def forward(self: TwoHeads, image: Tensor) -> object:
        heads = right(self, image)
        return wrong(**heads) if isinstance(heads, dict) else heads

    monkeypatch.setattr(TwoHeads, "forward", forward)
    with pytest.raises(UserError, match=message):
        run(f"two: {{arch: '{__name__}:two_heads'}}")


def test_auxiliary_heads_train_by_their_weight(run: Run) -> None:
    models = f"two: {{arch: '{__name__}:two_heads'}}"
    usual = run(models, out="usual")["two"]
    without = run(models, "recipe.aux_weight=0", out="without")["two"]
    record = read_record(usual.path)
    assert record is not None
    assert record.complexity["num_unreached"] == 0
    torch.manual_seed(0)
    begin = TwoHeads(6).state_dict()
    assert torch.equal(read_weights(without.weights)["aux.weight"], begin["aux.weight"])
    assert not torch.equal(read_weights(usual.weights)["aux.weight"], begin["aux.weight"])


def test_a_frozen_encoder_is_as_it_was(run: Run, tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    asked = {"arch": "custom/resnet_fcn", "encoder": "resnet18", "freeze_encoder": True}
    with pytest.raises(UserError, match="its encoder is frozen with random weights"):
        run(f"frozen: {json.dumps(asked)}")
    asked["weights"] = {"encoder": "w.pth"}
    folder = run(f"frozen: {json.dumps(asked)}")["frozen"]
    torch.manual_seed(0)
    spec = ModelSpec.model_validate(asked, context={"folder": tmp_path})
    model, _ = build_model(spec, 6)
    before, after = model.net.state_dict(), read_weights(folder.weights)
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert same == {key for key in before if key.startswith("encoder.")}
    record = read_record(folder.path)
    assert record is not None
    trained = record.complexity["num_params"] - record.complexity["num_trainable"]
    assert trained == sum(p.numel() for p in model.net.encoder.parameters())


def test_what_fcn32s_learns_starts_fcn16s() -> None:
    torch.manual_seed(0)
    coarse, fine = fcn32s.build(2), fcn16s.build(2)
    nn.init.normal_(coarse.score_fc7.weight)
    unused, unfilled = load_part(fine, coarse.state_dict(), "all", "fcn32s")
    assert unused == ("upscore32.weight",)
    layers = {key.partition(".")[0] for key in unfilled}
    assert layers == {"upscore2", "score_pool4", "upscore16"}
    for part in ("encoder", "score_fc7"):
        one, other = (getattr(net, part).state_dict() for net in (coarse, fine))
        assert all(torch.equal(one[key], other[key]) for key in one)


class Wrapped(nn.Module):
    """Has its encoder one level deeper."""

    def __init__(self, net: TwoHeads) -> None:
        super().__init__()
        self.inside = net

    @property
    def encoder(self) -> nn.Module:
        return self.inside.conv


def with_pretrained(num_classes: int, pretrained: str | None = None) -> nn.Module:
    """Build a stand-in for a network whose encoder weights are downloaded."""
    net = Wrapped(TwoHeads(num_classes))
    net.input_multiple = 1
    if pretrained is not None:
        nn.init.constant_(net.encoder.weight, 0.125)
    return net


@pytest.mark.parametrize("init", ["xavier", "kaiming", "default"])
def test_init_leaves_downloaded_weights_alone(init: str) -> None:
    asked = {"arch": f"{__name__}:with_pretrained", "init": init}
    weights = {"part": "encoder", "source": "imagenet"}
    model, _ = build_model(ModelSpec.model_validate(asked | {"weights": weights}), 6)
    assert (model.net.encoder.weight == 0.125).all()
    torch.manual_seed(1)
    model, _ = build_model(ModelSpec.model_validate(asked), 6)
    bound = {"xavier": (6 / 14) ** 0.5, "default": 8**-0.5}.get(init)
    weight = model.net.inside.head.weight
    if bound is None:
        assert weight.abs().max() > 2 * (2 / 8) ** 0.5 or weight.std() == pytest.approx(
            0.5, rel=0.3
        )
    else:
        assert 0.8 * bound < weight.abs().max() <= bound
    assert (model.net.inside.head.bias == 0).all() == (init != "default")


def test_init_overrides_the_architectures_own() -> None:
    def drawn(**asked: str) -> Tensor:
        torch.manual_seed(0)
        model, _ = build_model(ModelSpec.model_validate({"arch": "custom/fcn"} | asked), 6)
        weight: Tensor = model.net.decoder[0].weight.detach()
        return weight

    own = drawn()
    assert torch.equal(own.abs() <= (6 / (2 * 512 * 9)) ** 0.5, torch.ones_like(own) > 0)
    assert drawn(init="kaiming").std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert drawn(init="default").abs().max() <= (512 * 9) ** -0.5


@pytest.mark.parametrize("name", ["erfnet", "darrennet", "eighth"])
def test_the_authors_erfnet_encoder_fits(name: str, tmp_path: Path) -> None:
    """The authors' classifier file: saved with DataParallel, the encoder below `features`."""
    torch.manual_seed(1)
    encoder = erfnet.Encoder(None)
    state = {f"module.features.encoder.{k}": v for k, v in encoder.state_dict().items()}
    state |= {"module.linear.weight": torch.rand(9, 128), "module.linear.bias": torch.rand(9)}
    file = tmp_path / "erfnet_encoder_pretrained.pth.tar"
    torch.save({"epoch": 1, "state_dict": state}, file)
    arch = "darrennet" if name == "darrennet" else "erfnet"
    asked = {"arch": f"custom/{arch}", "weights": {"encoder": file.name}}
    asked |= {"head": "eighth"} if name == "eighth" else {}
    spec = ModelSpec.model_validate(asked, context={"folder": tmp_path})
    model, facts = build_model(spec, 5)
    filled = model.net.encoder.state_dict()
    assert all(torch.equal(filled[key], value) for key, value in encoder.state_dict().items())
    assert facts["unused_keys"] == ("linear.bias", "linear.weight")
    assert facts["weights"] == "encoder: erfnet_encoder_pretrained.pth.tar"


def test_the_head_inside_an_encoder_may_be_of_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = erfnet.build(20, head="eighth")
    torch.save(other.state_dict(), tmp_path / "w.pth")
    asked = {"arch": "custom/erfnet", "weights": {"encoder": "w.pth"}}
    model, _ = build_model(ModelSpec.model_validate(asked, context={"folder": tmp_path}), 5)
    key = "layers.3.conv3x1_2.weight"
    assert torch.equal(model.net.encoder.state_dict()[key], other.encoder.state_dict()[key])
    net = erfnet.build(5)
    load_part(net, other.state_dict(), "encoder", "other")
    assert torch.equal(net.encoder.state_dict()[key], other.encoder.state_dict()[key])
