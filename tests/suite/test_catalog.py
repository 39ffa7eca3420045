"""The names read from the installed source must equal those that the libraries list."""

import ast
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torchvision

from bench.errors import UserError
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


def test_shipped_suites_have_names() -> None:
    shipped = catalog.shipped_suites()
    assert {"quick", "voc_all", "complexity", "documents/fcn-idd"} <= set(shipped)
    assert all(file.is_file() for file in shipped.values())


def test_what_is_in_the_working_directory_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert catalog.find_suite("quick") == catalog.shipped_suites()["quick"]
    assert catalog.is_suite("quick")
    assert catalog.is_suite("gone.yaml")
    (tmp_path / "quick").mkdir()
    with pytest.raises(UserError, match="quick is a folder; name a suite file"):
        catalog.find_suite("quick")
    assert not catalog.is_suite("quick")  # a folder with results, say
    with pytest.raises(UserError, match=r"No suite file quik.yaml. .* Did you mean 'quick'\?"):
        catalog.find_suite("quik.yaml")
