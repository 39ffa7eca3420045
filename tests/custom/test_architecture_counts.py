"""Parameters, bytes and multiply-adds of every network, against independent numbers.

They were counted on the authors' public code; GMAC in eval mode for one RGB image.
"""

import ast
import importlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from custom_models import ARCHITECTURES
from custom_models.unet_valid import UNetValid


@dataclass(frozen=True)
class Row:
    """Independent counts of one network; None means not counted."""

    name: str
    num_classes: int
    parameters: int
    mb: float | None = None  # of the state dict, 10^6 bytes
    mib: float | None = None  # the same, 2^20 bytes
    gmac: float | None = None
    size: tuple[int, int] = (512, 512)
    options: dict[str, Any] = field(default_factory=dict)
    trainable: int | None = None  # None for all


ROWS = (
    Row("fcn", 21, 5_500_245, 22.02, 21.00, 6.877),
    Row("fcn", 11, 5_499_915),
    Row("fcn", 27, 5_500_443),
    Row("fcn", 21, 5_493_645, 21.99, 20.97, 6.401, options={"direct_head": True}),
    # the bilinear kernels are fixed: 21 x 21 x 64 x 64 and so on
    Row("fcn32s", 21, 136_152_917, 544.61, 519.38, 190.20, trainable=136_152_917 - 441 * 4096),
    Row(
        "fcn32s",
        21,
        136_152_917,
        544.61,
        519.38,
        190.20,
        options={"learned": True},
    ),
    Row(
        "fcn16s",
        21,
        134_815_994,
        539.26,
        514.28,
        190.28,
        trainable=134_815_994 - 441 * (1024 + 16),
    ),
    Row(
        "fcn8s",
        21,
        134_489_759,
        537.96,
        513.04,
        190.37,
        trainable=134_489_759 - 441 * (256 + 16 + 16),
    ),
    Row(
        "fcn8s",
        21,
        134_489_759,
        537.96,
        513.04,
        190.37,
        options={"at_once": True},
        trainable=134_489_759 - 441 * (256 + 16 + 16),
    ),
    Row("fcn8s", 11, 134_348_929, trainable=134_348_929 - 121 * (256 + 16 + 16)),
    Row("erfnet", 21, 2_067_030, 8.29, 7.91, 13.311),
    Row("erfnet", 11, 2_065_090),
    Row("erfnet", 20, 2_066_836),
    Row("darrennet", 21, 2_064_321),
    Row("darrennet", 21, 2_064_321, options={"transfer": True}),
    Row("enet", 21, 364_441, 1.49, 1.42, 1.969),
    Row("enet", 21, 364_441, gmac=1.731, size=(360, 640)),
    Row("enet", 11, 363_791),
    Row("r2unet", 21, 39_092_693, 156.43, 149.18, 610.3),
    Row("r2unet", 21, 39_092_693, gmac=436.3, options={"t": 1}),
    Row("r2unet", 21, 39_092_693, gmac=784.2, options={"t": 3}),
    Row("rrcnn_fcn", 27, 41_601_691, 166.46, 158.74, 114.47),
    Row("rrcnn_fcn", 21, 41_601_493),
    Row("unet", 21, 31_038_933, 124.20, 118.45, 193.0),
    Row("unet", 21, 31_044_821, 124.23, 118.47, 193.0, options={"bias": True}),
    Row("unet_valid", 21, 31_033_045, 124.13, 118.38, 151.0, (572, 572)),
    Row("simplified_unet", 21, 3_015_509, 12.06, 11.50, 50.73),
    Row("resnet_fcn", 21, 27_718_293, 111.09, 105.94, 23.62),
    Row("resnet_fcn", 21, 27_718_293, options={"freeze_encoder": True}, trainable=4_210_261),
    Row("resnet_fcn", 21, 25_214_357, 100.93, 96.26, 24.75, options={"encoder": "resnet34"}),
    Row("pspnet", 21, 49_081_578, 196.56, 187.46, 189.7, (513, 513)),
    Row("pspnet", 21, 46_716_373, options={"aux_channels": None}),
    Row("pspnet", 19, 51_444_710, 206.02, 196.47, 184.15, options={"aux_channels": 512}),
    Row("pspnet", 19, 46_715_347, options={"aux_channels": None}),
    Row("deeplabv3_deconv", 27, 62_691_440, 251.21, 239.57, 271.6, trainable=17_826_075),
)
IDS = ["-".join([row.name, str(row.num_classes), *map(str, row.options.values())]) for row in ROWS]


def build(row: Row) -> nn.Module:
    with torch.device("meta"):
        net: nn.Module = importlib.import_module(f"custom_models.{row.name}").build(
            row.num_classes, **row.options
        )
    return net.eval()


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_parameters_and_bytes(row: Row) -> None:
    net = build(row)
    assert count(net) == row.parameters
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert trainable == (row.trainable or row.parameters)
    size = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    assert row.mb in (None, round(size / 10**6, 2))
    assert row.mib in (None, round(size / 2**20, 2))


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.gmac], ids=lambda row: f"{row.name}-{row.gmac}"
)
def test_multiply_adds(row: Row) -> None:
    net = build(row)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        net(torch.zeros(1, 3, *row.size, device="meta"))
    assert flops.get_total_flops() / 2e9 == pytest.approx(row.gmac, rel=1e-3)


def test_the_head_of_the_first_stage_of_erfnet() -> None:
    eighth = build(Row("erfnet", 21, 0, options={"head": "eighth"}))
    assert count(eighth.encoder.output_conv) == 2_709
    assert 2_067_030 - 2_709 == 2_064_321  # DarrenNet's


def test_the_paper_s_own_unet_is_of_grey_images() -> None:
    with torch.device("meta"):
        net = UNetValid(2, in_channels=1)
    assert count(net) == 31_030_658


def test_every_architecture_is_counted() -> None:
    assert {row.name for row in ROWS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_docstrings_tell_the_count(name: str) -> None:
    [row, *_] = [row for row in ROWS if row.name == name]
    tree = ast.parse((ROOT / "custom_models" / f"{name}.py").read_text())
    nodes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    text = " ".join(ast.get_docstring(node) or "" for node in nodes)
    assert f"{row.parameters:,} parameters" in " ".join(text.split())
