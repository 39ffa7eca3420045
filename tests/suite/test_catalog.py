"""Names read from the installed source must be the names that the libraries themselves list."""

import ast

import segmentation_models_pytorch as smp
import timm
import torchvision

from bench.suite import catalog
from custom_models import ARCHITECTURES


def test_smp_architectures() -> None:
    assert set(catalog.smp_architectures()) == set(smp.MODEL_ARCHITECTURES_MAPPING)


def test_smp_encoders() -> None:
    assert set(catalog.smp_encoders()) == set(smp.encoders.encoders)


def test_timm_models() -> None:
    assert set(catalog.timm_models()) == set(timm.list_models())


def test_architectures() -> None:
    assert {"smp/unet", "custom/enet", "timm/resnet50"} <= set(catalog.architectures())


def test_custom_options() -> None:
    for name, architecture in ARCHITECTURES.items():
        own = {k: v for k, v in architecture.options.items() if k != "pretrained"}
        read = {k: ast.literal_eval(v) for k, v in catalog.custom_options(name).items()}
        assert read == own


def test_torchvision_architectures() -> None:
    known = [
        m for m in torchvision.models.list_models() if m in vars(torchvision.models.segmentation)
    ]
    assert list(catalog.torchvision_architectures()) == sorted(known)
