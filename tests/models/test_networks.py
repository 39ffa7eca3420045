"""Networks of every kind that a suite can name, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from bench.errors import UserError
from bench.models.complexity import complexity
from bench.models.networks import build_network
from bench.models.probing import find_geometry
from bench.models.segmenter import build_model, normalization
from bench.models.weights import load_encoder
from bench.suite.catalog import torchvision_architectures
from bench.suite.model import ModelSpec


def spec(arch: str, **options: object) -> ModelSpec:
    return ModelSpec.model_validate({"arch": arch} | options, context={"folder": Path()})


def build(arch: str, num_classes: int = 5, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_network(spec(arch, **options), num_classes)


@pytest.mark.parametrize("name", torchvision_architectures())
def test_every_torchvision_network_gives_its_own_logits(name: str) -> None:
    net = build(f"torchvision/{name}").eval()
    own = (
        getattr(torchvision.models.segmentation, name)(
            weights=None, weights_backbone=None, num_classes=5, aux_loss=False
        )
        if "lraspp" not in name
        else getattr(torchvision.models.segmentation, name)(
            weights=None, weights_backbone=None, num_classes=5
        )
    )
    own.load_state_dict(net.state_dict())  # they have torchvision's keys
    image = torch.rand(1, 3, 65, 48)
    with torch.no_grad():
        torch.testing.assert_close(net(image), own.eval()(image)["out"])


def test_torchvision_has_its_auxiliary_head_only_in_training() -> None:
    net = build("torchvision/fcn_resnet50", aux_loss=True)
    heads = net(torch.rand(2, 3, 32, 32))
    assert {name: tuple(head.shape) for name, head in heads.items()} == dict.fromkeys(
        ("out", "aux"), (2, 5, 32, 32)
    )
    assert net.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 5, 32, 32)


# Exact figures of ARCHITECTURES' reference implementations.
@pytest.mark.parametrize(
    ("name", "options", "params", "gmacs", "mb"),
    [
        ("deeplabv3_resnet50", {}, 39_638_869, 163.6, 158.78),
        ("deeplabv3_resnet50", {"aux_loss": True}, 42_004_074, 163.6, None),
        ("deeplabv3_resnet101", {}, 58_630_997, 241.2, 234.96),
        ("deeplabv3_resnet101", {"aux_loss": True}, 60_996_202, 241.2, None),
    ],
)
def test_torchvision_counts(
    name: str, options: dict[str, bool], params: int, gmacs: float, mb: float | None
) -> None:
    model_spec = spec(f"torchvision/{name}", **options)
    geometry = find_geometry(build_network(model_spec, 21), model_spec, 21)
    facts = complexity(model_spec, 21, (512, 512), geometry, micro_batch=2)
    assert (facts.num_params, facts.num_unreached) == (params, 0)
    assert facts.gmacs == pytest.approx(gmacs, rel=1e-3)
    assert mb is None or round(facts.model_bytes / 1e6, 2) == mb


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto", "hrnet_w18_small"],
)
def test_timm_features_under_an_fcn_head(name: str) -> None:
    model, facts = build_model(spec(f"timm/{name}"), 5)
    model.eval()
    image = torch.randint(0, 256, (1, 3, 70, 101), dtype=torch.uint8)
    with torch.no_grad():
        assert model(image).shape == (1, 5, 70, 101)
    assert facts["mean"] == tuple(timm.get_pretrained_cfg(name).mean)


def test_channels_last_features_of_timm() -> None:
    net = build("timm/swin_tiny_patch4_window7_224", img_size=64, window_size=2)
    assert net.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 5, 64, 64)


def test_timm_encoders_of_custom_networks_are_normalised_as_timm_says() -> None:
    name = "tf_efficientnet_lite0"
    config = timm.get_pretrained_cfg(name)
    found = normalization(spec("custom/resnet_fcn", encoder=name))
    assert found is not None
    assert (found.mean, found.std) == (tuple(config.mean), tuple(config.std))


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("torchvision/fcn_resnet50", {"aux": True}, "Unknown option 'aux'.*aux_loss"),
        ("torchvision/lraspp_mobilenet_v3_large", {"aux_loss": True}, "does not use aux"),
        ("custom/fcn8s", {"pretrained": "imagenet"}, "pretrained is set by weights:"),
        (
            "custom/erfnet",
            {"head": "half"},
            "head: Input should be 'full', 'eighth' or",
        ),
        ("custom/resnet_fcn", {"encoder": "vit_tiny_patch16_224"}, "stride"),
        ("timm/resnet18", {"colour": 1}, "does not build"),
        ("custom/deeplabv3_deconv", {"at_once": True}, "Unknown option 'at_once'"),
        ("custom/fcn8s", {"att_once": True}, "Did you mean 'at_once'"),
        ("custom/unet", {"bias": "no"}, "bias: Input should be a valid boolean, not 'no'"),
        ("custom/r2unet", {"t": "two"}, "t: Input should be a valid integer, not 'two'"),
        ("custom/pspnet", {"encoder": "convnext_tiny"}, "convnext_tiny is no ResNet of timm"),
        ("custom/pspnet", {"encoder": "resnet18"}, "resnet18 has no bottlenecks"),
        ("torchvision/fcn_resnet50", {"aux_loss": "no"}, "aux_loss is true or false, not 'no'"),
    ],
)
def test_what_is_refused(arch: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(arch, **options)


def test_a_classifier_gives_no_logits_of_pixels() -> None:
    model_spec = spec("custom/erfnet", head="classification")
    net = build_network(model_spec, 5)
    geometry = find_geometry(net, model_spec, 5)
    with pytest.raises(UserError, match=r"erfnet returns \(1, 5\); expected logits \(N, K"):
        complexity(model_spec, 5, (64, 64), geometry, micro_batch=2)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("custom/fcn8s", {"weights": {"encoder": "imagenet"}}),
        ("custom/resnet_fcn", {"weights": "imagenet"}),
        ("custom/pspnet", {"weights": "imagenet", "encoder": "resnet50"}),
        ("custom/deeplabv3_deconv", {"weights": "coco"}),
        ("torchvision/lraspp_mobilenet_v3_large", {"weights": "imagenet"}),
        ("timm/resnet18", {"weights": "imagenet"}),
    ],
)
def test_without_a_network_the_message_says_what_to_do(
    arch: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"Cannot download the weights .* of .*offline, give a file"
    ):
        build_model(spec(arch, **options), 5)


@pytest.mark.parametrize(
    ("arch", "weights", "message"),
    [
        ("custom/fcn8s", "coco", "Unknown weights 'coco'.* Known: imagenet"),
        ("custom/deeplabv3_deconv", "imagenet", "Unknown weights 'imagenet'.* Known: coco"),
        ("torchvision/fcn_resnet50", "coco", "Unknown weights 'coco'.* Known: imagenet"),
        ("custom/enet", "imagenet", "has no weights to download, such as 'imagenet'; give a file"),
    ],
)
def test_names_of_weights_that_are_not(arch: str, weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_network(spec(arch, weights=weights), 5)  # as validation does: nothing is downloaded


def test_a_file_of_another_network_does_not_fill_vgg(tmp_path: Path) -> None:
    other = timm.create_model("mobilenetv3_small_050")
    torch.save(other.state_dict(), tmp_path / "w.pth")
    asked = {"arch": "custom/fcn32s", "weights": {"encoder": "w.pth"}}
    model_spec = ModelSpec.model_validate(asked, context={"folder": tmp_path})
    with pytest.raises(UserError, match=r"w.pth does not fill the encoder: \d+ keys missing"):
        build_model(model_spec, 2)


@pytest.mark.parametrize(
    ("arch", "options", "library"),
    [
        ("custom/pspnet", {"encoder": "resnet50"}, lambda: torchvision.models.resnet50()),
        ("custom/pspnet", {}, lambda: timm.create_model("resnet50s")),
        ("custom/resnet_fcn", {"encoder": "resnet34"}, lambda: torchvision.models.resnet34()),
        (
            "custom/deeplabv3_deconv",
            {},
            lambda: torchvision.models.segmentation.deeplabv3_resnet101(
                weights=None, weights_backbone=None, aux_loss=True
            ),
        ),
        ("torchvision/fcn_resnet50", {}, lambda: torchvision.models.resnet50()),
        ("timm/mobilenetv3_small_050", {}, lambda: timm.create_model("mobilenetv3_small_050")),
    ],
)
def test_encoders_take_the_files_of_the_libraries(
    arch: str, options: dict[str, object], library: Callable[[], nn.Module]
) -> None:
    net, source = build(arch, **options), library()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.fill_(0.5)
    load_encoder(net, source.state_dict(), "w")
    assert isinstance(net.encoder, nn.Module)
    assert all((parameter == 0.5).all() for parameter in net.encoder.parameters())
