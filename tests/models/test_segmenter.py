from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from bench.errors import UserError
from bench.machine.device import algorithms
from bench.models import complexity as module
from bench.models import segmenter as models
from bench.models.complexity import complexity
from bench.models.geometry import Geometry
from bench.models.networks import build_network
from bench.models.probing import find_geometry
from bench.models.segmenter import Segmenter, build_model, normalization
from bench.suite.catalog import smp_architectures
from bench.suite.model import ModelSpec, Weights

ENCODER_OF = {"dpt": "tu-mobilenetv3_small_050", "segformer": "mit_b0"}


def spec(arch: str, **options: object) -> ModelSpec:
    return ModelSpec.model_validate({"arch": arch} | options, context={"folder": Path()})


@pytest.mark.filterwarnings("ignore:Encoder does not have prefix tokens")
@pytest.mark.parametrize("name", smp_architectures())
def test_every_smp_architecture_runs_at_any_size(name: str) -> None:
    model_spec = spec(f"smp/{name}", encoder=ENCODER_OF.get(name, "resnet18"))
    model, facts = build_model(model_spec, 5)
    model.eval()
    image = torch.randint(0, 256, (1, 3, 70, 101), dtype=torch.uint8)
    with torch.no_grad():
        logits = model(image)
    assert logits.shape == (1, 5, 70, 101)
    assert facts["input_multiple"] == model.geometry.multiple


@pytest.mark.parametrize(
    ("arch", "options", "multiple"),
    [
        ("smp/unet", {"encoder": "resnet34"}, 1),
        ("smp/pspnet", {"encoder": "resnet50"}, 8),
        ("smp/fpn", {"encoder": "resnet18"}, 32),
        ("custom/enet", {}, 8),
        ("custom/fcn", {}, 32),
    ],
)
def test_input_multiples(arch: str, options: dict[str, str], multiple: int) -> None:
    model_spec = spec(arch, **options)
    net = build_network(model_spec, 21)
    assert find_geometry(net, model_spec, 21).multiple == multiple


class AddsSize(nn.Module):
    """Returns the sum of its input, which shows what reaches a network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2]


def test_a_network_with_a_minimum() -> None:
    net = build_network(spec("smp/pan", encoder="resnet18"), 3)
    assert find_geometry(net, spec("smp/pan", encoder="resnet18"), 3) == Geometry(16, 128)
    assert Geometry(16, 128).padded(60) == 128
    assert Geometry(16, 128).padded(130) == 144


def test_the_segmenter_normalises_pads_and_crops() -> None:
    normalize = models.Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    model = Segmenter(AddsSize(), normalize, Geometry(8, 16))
    image = torch.full((1, 3, 5, 9), 255, dtype=torch.uint8)
    image[..., 0, 0] = 0
    out = model(image)
    assert out.shape == (1, 2, 5, 9)
    assert out[0, 0, 0, 0] == pytest.approx(-2)
    assert out[0, 0, 1, 1] == pytest.approx(2)
    assert list(model.state_dict()) == []


# Exact figures of the reference implementations.
COUNTS = [
    ("custom/fcn", {}, 21, 5_500_245, 0, 6.877, 22.02),
    ("custom/fcn", {}, 11, 5_499_915, 0, None, None),
    ("custom/fcn", {}, 27, 5_500_443, 0, None, None),
    ("custom/fcn", {"direct_head": True}, 21, 5_493_645, 0, 6.401, 21.99),
    ("custom/enet", {}, 21, 364_441, 0, 1.969, 1.49),
    ("custom/enet", {}, 11, 363_791, 0, None, None),
    ("smp/unet", {"encoder": "resnet34"}, 21, 24_439_269, 0, 32.01, 97.83),
    ("smp/pspnet", {"encoder": "resnet50"}, 21, 24_393_173, 22_063_104, 12.02, 97.79),
]


@pytest.mark.parametrize(
    ("arch", "options", "classes", "params", "unreached", "gmacs", "mb"), COUNTS
)
def test_complexity(
    arch: str,
    options: dict[str, object],
    classes: int,
    params: int,
    unreached: int,
    gmacs: float | None,
    mb: float | None,
) -> None:
    model_spec = spec(arch, **options)
    facts = complexity(model_spec, classes, (512, 512), Geometry(32, 32), micro_batch=2)
    assert facts.num_params == facts.num_trainable == params
    assert facts.num_unreached == unreached
    if gmacs is not None:
        assert facts.gmacs == pytest.approx(gmacs, rel=1e-3)
    if mb is not None:
        assert round(facts.model_bytes / 1e6, 2) == mb


def test_a_batch_of_one_that_cannot_train_is_found_by_probing() -> None:
    deeplab = spec("smp/deeplabv3", encoder="resnet18")
    with pytest.raises(UserError, match="cannot train on 1 image.*raise batch_size"):
        complexity(deeplab, 21, (64, 64), Geometry(8, 32), micro_batch=1)
    complexity(deeplab, 21, (64, 64), Geometry(8, 32), micro_batch=2)
    complexity(spec("smp/pspnet", encoder="resnet18"), 21, (64, 64), Geometry(8, 32), micro_batch=1)


class NeedsValues(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x * float(x.abs().max().item() + 1))


class Wrong(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def needs_values(num_classes: int) -> nn.Module:
    return NeedsValues(num_classes)


def wrong(num_classes: int) -> nn.Module:
    return Wrong(num_classes)


class Dictionary(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": x}


def dictionary(num_classes: int) -> nn.Module:
    return Dictionary()


def no_module(num_classes: int) -> int:
    return num_classes


class NeedsValuesInTraining(NeedsValues):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if self.training else self.conv(x)


def needs_values_in_training(num_classes: int) -> nn.Module:
    return NeedsValuesInTraining(num_classes)


def test_a_network_may_need_values_in_training_alone() -> None:
    model_spec = spec(f"{__name__}:needs_values_in_training")
    facts = complexity(model_spec, 3, (32, 32), Geometry(1, 32), micro_batch=2)
    assert facts.num_params == 12


def test_only_networks_whose_code_is_fixed_are_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[str] = []
    count = module._count

    def noted(model: ModelSpec, *asked: object) -> module.Complexity:
        counted.append(model.arch)
        return count(model, *asked)

    monkeypatch.setattr(module, "_counted", {})
    monkeypatch.setattr(module, "_count", noted)
    own = f"{__name__}:needs_values"
    for arch in ("custom/fcn", own, "custom/fcn", own):
        complexity(spec(arch), 4, (32, 32), Geometry(32, 32), 2)
    complexity(spec("custom/fcn"), 4, (32, 64), Geometry(32, 32), 2)
    with algorithms(deterministic=True):
        complexity(spec("custom/fcn"), 4, (32, 32), Geometry(32, 32), 2)
    assert counted == ["custom/fcn", own, own, "custom/fcn", "custom/fcn"]


def test_a_users_own_network_may_need_values() -> None:
    model_spec = spec(f"{__name__}:needs_values")
    model, _ = build_model(model_spec, 4)
    assert model.geometry.multiple == 1
    assert complexity(model_spec, 4, (32, 32), Geometry(1, 32), 2).num_params == 16


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        (f"{__name__}:wrong", {}, ":wrong returns logits of 127x159 for images of 129x161; both"),
        (f"{__name__}:no_module", {}, "returned int; expected an nn.Module"),
        (f"{__name__}:gone", {}, "Unknown attribute 'gone'"),
        ("custom/enet", {"width": 3}, "Unknown option 'width'. Known: none."),
        ("smp/unet", {"decoder_chanels": [8]}, "Unknown option .*Did you mean 'decoder_channels'"),
        ("smp/unet", {"encoder_weights": "imagenet"}, "encoder_weights is set by weights:"),
        ("smp/unet", {"encoder": "tu-resnet18.no_tag"}, "does not build: Invalid pretrained tag"),
        (
            f"{__name__}:dictionary",
            {},
            ":dictionary returns a dict with out; expected one tensor of logits",
        ),
        ("smp/linknet", {"encoder": "mit_b0"}, "not supported for Linknet"),
    ],
)
def test_networks_that_do_not_build(arch: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(spec(arch, **options), 4)


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ({"arch": "custom/enet"}, 0.485),
        ({"arch": "smp/unet", "encoder": "resnet34"}, 0.485),
        ({"arch": "smp/unet", "encoder": "xception"}, 0.5),
        ({"arch": "smp/unet", "encoder": "tu-tf_efficientnet_lite0"}, 0.5),
        ({"arch": "custom/enet", "normalize": {"mean": [0.1] * 3, "std": [1] * 3}}, 0.1),
    ],
)
def test_normalization(options: dict[str, object], mean: float) -> None:
    found = normalization(ModelSpec.model_validate(options))
    assert found is not None
    assert found.mean[0] == pytest.approx(mean)


def test_no_normalization() -> None:
    assert normalization(spec("custom/enet", normalize="none")) is None


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_that_cannot_be_downloaded(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model_spec = spec("smp/unet", encoder=encoder, weights="imagenet")
    with pytest.raises(UserError, match="Cannot download the weights 'imagenet'.*give a file"):
        build_model(model_spec, 4)


def test_flattened_names_of_timm_are_found(tmp_path: Path) -> None:
    """timm's feature extractors rename stages.0 to stages_0; files have the plain names."""
    plain = timm.create_model("convnext_atto", pretrained=False)
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    weights = Weights(part="encoder", source="w.pth", file=tmp_path / "w.pth")
    model_spec = spec("smp/unet", encoder="tu-convnext_atto")
    model, facts = build_model(model_spec.model_copy(update={"weights": weights}), 3)
    name = "net.encoder.model.stages_3.blocks.1.conv_dw.weight"
    loaded = dict(model.named_parameters())[name]
    assert torch.equal(loaded, plain.state_dict()["stages.3.blocks.1.conv_dw.weight"])
    assert all(key.startswith("head.") for key in facts["unused_keys"])


def test_a_pretrained_encoder_by_path(shared: Path) -> None:
    file = shared / "weights" / "tf_efficientnet_lite0.safetensors"
    weights = Weights(part="encoder", source="w", file=file)
    model_spec = spec("smp/unet", encoder="tu-tf_efficientnet_lite0")
    model, facts = build_model(model_spec.model_copy(update={"weights": weights}), 11)
    left = {key.split(".")[0] for key in facts["unused_keys"]}
    assert left == {"conv_head", "bn2", "classifier"}
    stem = load_file(file)["conv_stem.weight"]
    assert torch.equal(dict(model.named_parameters())["net.encoder.model.conv_stem.weight"], stem)
