"""What a GPU cannot repeat is found without one."""

import pytest
import torch

from bench.machine.device import algorithms
from bench.models.determinism import UNREPEATABLE, unrepeatable
from bench.models.networks import build_network
from bench.models.probing import find_geometry
from bench.suite.model import ModelSpec


def found(**spec: str) -> list[str]:
    asked = ModelSpec.model_validate(spec)
    with torch.device("meta"):
        geometry = find_geometry(build_network(asked, 6), asked, 6)
    with algorithms(True):
        return unrepeatable(asked, 6, (96, 96), geometry, 4)


@pytest.mark.parametrize(
    "spec",
    [
        {"arch": "custom/pspnet"},
        {"arch": "smp/pspnet", "encoder": "resnet18"},
        {"arch": "smp/upernet", "encoder": "resnet18"},
    ],
    ids=lambda spec: spec["arch"],
)
def test_adaptive_pooling_has_no_deterministic_form(spec: dict) -> None:
    assert found(**spec) == ["adaptive average pooling"]


@pytest.mark.parametrize("arch", ["custom/enet", "custom/fcn", "custom/erfnet"])
def test_others_have_one(arch: str) -> None:
    assert found(arch=arch) == []


def test_the_operations_exist() -> None:
    for name in UNREPEATABLE:
        assert hasattr(torch.ops.aten, name), name
