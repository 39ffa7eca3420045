"""Layer tables of networks, compared with the tables in the documents, typed by hand."""

import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.report.formats.formats import FORMATS
from bench.report.layers.layers import HEADERS, layer_tables
from bench.report.table import EMPTY, Table, Text
from bench.suite.catalog import architectures
from custom_models import ARCHITECTURES

Rows = list[dict[str, str]]


@cache
def tables(arch: str, **options: object) -> list[Table]:
    return layer_tables(arch, options)


def rows(table: Table, *types: str) -> Rows:
    """Return the rows of a table, or only those of the given types."""
    texts = [[cell.text for cell in row if isinstance(cell, Text)] for row in table.rows]
    found = [dict(zip(HEADERS, row, strict=True)) for row in texts]
    return [row for row in found if not types or row["Type"] in types]


def columns(found: Rows, *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in found]


def split(text: str) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in text.strip().splitlines()]


# darrennet-voc2007, table 1: type, in, out, stride. Its padding 0 is left out: blocks have none.
DARRENNET = split("""
    Downsampler      3  16   2
    Downsampler     16  64   2
    NonBottleneck1d 64  64   1
    NonBottleneck1d 64  64   1
    NonBottleneck1d 64  64   1
    NonBottleneck1d 64  64   1
    NonBottleneck1d 64  64   1
    Downsampler     64 128   2
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    NonBottleneck1d 128 128  1
    Upsampler       128  64  1/2
    NonBottleneck1d 64  64   1
    NonBottleneck1d 64  64   1
    Upsampler       64  16   1/2
    NonBottleneck1d 16  16   1
    NonBottleneck1d 16  16   1
    deconv          16  21   2
""")
# Corrected: the initial block has 3 input channels (document: none) and stride 2 (document: 1); the
# upsamplers have stride 1/2 (document: 1); the output ("Output Conv") is transposed.


def test_darrennet_table_1() -> None:
    network = rows(tables("custom/darrennet")[0])
    assert columns(network, "Type", "In", "Out", "Stride") == DARRENNET
    kernels = {"NonBottleneck1d": "3x1, 1x3", "deconv": "2x2"}  # corrected from 3x3: pairs
    assert all(row["Kernel"] == kernels.get(row["Type"], "3x3") for row in network)
    # Corrected: the document omits the dilation of blocks 6 to 13.
    dilation = [row["Dilation"] for row in network if row["Type"] == "NonBottleneck1d"]
    assert dilation == [*"11111", *("2", "4", "8", "16") * 2, *"1111"]
    assert [row["Activation"].split(", ")[-1] for row in network] == ["ReLU"] * 22 + [EMPTY]


def test_darrennet_table_2() -> None:
    [table] = (t for t in tables("custom/darrennet") if "NonBottleneck1d" in t.caption)
    *convolutions, add = rows(table)
    assert [(r["Padding"], r["Kernel"], r["Stride"]) for r in convolutions] == [
        ("(1, 0)", "3x1", "1"),
        ("(0, 1)", "1x3", "1"),
        ("(1, 0)", "3x1", "1"),
        ("(0, 1)", "1x3", "1"),
    ]
    # bn1, bn2 and dropout are listed where they run. Corrected: the last ReLU follows an addition.
    assert [r["Activation"] for r in convolutions] == [
        "ReLU",
        "BN, ReLU",
        "ReLU",
        "BN, dropout 0.03",
    ]
    assert (add["Type"], add["Activation"]) == ("add", "ReLU")
    assert "Dropout differs by block: 0.03, 0.3, none." in table.notes


def test_darrennet_table_3() -> None:
    [table] = (t for t in tables("custom/darrennet") if "Downsampler" in t.caption)
    names = ("Type", "In", "Out", "Padding", "Kernel", "Stride")
    assert columns(rows(table), *names) == [
        ("conv", "3", "13", "1", "3x3", "2"),  # out - in
        ("max-pool", "3", "3", "0", "2x2", "2"),
        ("concat", "13 + 3", "16", EMPTY, EMPTY, EMPTY),  # corrected: missing in the document
    ]
    assert (
        rows(table)[-1]["Activation"] == "BN, ReLU"
    )  # corrected: the document has bn and no activation


def test_darrennet_table_4() -> None:
    [table] = (t for t in tables("custom/darrennet") if "Upsampler" in t.caption)
    names = ("Type", "In", "Out", "Padding", "Kernel", "Stride", "Activation")
    # The document writes padding (1, 1). Corrected: it omits the activation.
    assert columns(rows(table), *names) == [("deconv", "128", "64", "1", "3x3", "2", "BN, ReLU")]
    assert "Output padding 1: conv." in table.notes


def test_darrennet_parameters_follow_from_its_tables() -> None:
    count = 0
    for kind, a, b, _ in DARRENNET:
        x, y = int(a), int(b)
        count += {
            "Downsampler": 9 * x * (y - x) + (y - x) + 2 * y,
            "NonBottleneck1d": 4 * (3 * x * x + x) + 2 * 2 * x,
            "Upsampler": 9 * x * y + y + 2 * y,
            "deconv": 4 * x * y + y,
        }[kind]
    assert tables("custom/darrennet")[0].caption == f"DarrenNet: 21 classes, {count:,} parameters"


# Layers of the other documents: type, in, out, padding, kernel, stride.
COLUMNS = ("Type", "In", "Out", "Padding", "Kernel", "Stride")
LAYERS = ("conv", "deconv", "max-pool")

# darrennet-voc2007, table 5. Corrected: the first deconvolution is 512 to 512 (document: 512 to
# 256); the last row is a 1x1 convolution, padding 0, stride 1 (document: 3x3, 1, 2), no softmax.
TABLE_5 = split("""
    deconv 512 512 1 3x3 2
    deconv 512 256 1 3x3 2
    deconv 256 128 1 3x3 2
    deconv 128  64 1 3x3 2
    deconv  64  32 1 3x3 2
    conv    32  21 0 1x1 1
""")
# darrennet-voc2007, table 6, and fcn-resnet50-voc2007, table 3, which has no channels for pools.
# Corrected: conv17 of table 6 is 128 to 64 (document: 64 to 64).
U_NET = split("""
    conv        3   64 1 3x3 1
    conv       64   64 1 3x3 1
    max-pool   64   64 0 2x2 2
    conv       64  128 1 3x3 1
    conv      128  128 1 3x3 1
    max-pool  128  128 0 2x2 2
    conv      128  256 1 3x3 1
    conv      256  256 1 3x3 1
    max-pool  256  256 0 2x2 2
    conv      256  512 1 3x3 1
    conv      512  512 1 3x3 1
    max-pool  512  512 0 2x2 2
    conv      512 1024 1 3x3 1
    conv     1024 1024 1 3x3 1
    deconv   1024  512 0 2x2 2
    conv     1024  512 1 3x3 1
    conv      512  512 1 3x3 1
    deconv    512  256 0 2x2 2
    conv      512  256 1 3x3 1
    conv      256  256 1 3x3 1
    deconv    256  128 0 2x2 2
    conv      256  128 1 3x3 1
    conv      128  128 1 3x3 1
    deconv    128   64 0 2x2 2
    conv      128   64 1 3x3 1
    conv       64   64 1 3x3 1
    conv       64   21 0 1x1 1
""")
# fcn-resnet50-voc2007, table 1. Corrected: the three max-pools, which only the text mentions.
SIMPLIFIED = split("""
    conv       3  64 1 3x3 1
    max-pool  64  64 0 2x2 2
    conv      64 128 1 3x3 1
    max-pool 128 128 0 2x2 2
    conv     128 256 1 3x3 1
    max-pool 256 256 0 2x2 2
    conv     256 512 1 3x3 1
    deconv   512 256 0 2x2 2
    conv     256 256 1 3x3 1
    deconv   256 128 0 2x2 2
    conv     128 128 1 3x3 1
    deconv   128  64 0 2x2 2
    conv      64  64 1 3x3 1
    conv      64  21 0 1x1 1
""")
# fcn-resnet50-voc2007, table 2, which omits stride and padding of the 1x1 convolutions.
RESNET_50 = split("""
    conv   2048 1024 0 1x1 1
    conv   1024  512 0 1x1 1
    deconv  512  256 1 3x3 2
    deconv  256  128 1 3x3 2
    deconv  128   64 1 3x3 2
    deconv   64   64 1 3x3 2
    conv     64   21 0 1x1 1
""")


@pytest.mark.parametrize(
    ("arch", "options", "document"),
    [
        ("custom/resnet_fcn", {"encoder": "resnet34"}, TABLE_5),
        ("custom/unet", {"bias": True}, U_NET),
        ("custom/simplified_unet", {}, SIMPLIFIED),
        ("custom/resnet_fcn", {"encoder": "resnet50"}, RESNET_50),
    ],
)
def test_tables_of_documents(
    arch: str, options: dict[str, object], document: list[tuple[str, ...]]
) -> None:
    [table] = tables(arch, **options)
    assert columns(rows(table, *LAYERS), *COLUMNS) == document


def test_activations_are_in_order_of_execution() -> None:
    def then(arch: str, *types: str) -> list[str]:
        return [row["Activation"] for row in rows(tables(arch)[0], *types)]

    assert then("custom/resnet_fcn", "conv", "deconv") == [
        *["ReLU"] * 4,
        *["ReLU, BN"] * 2,  # as in table 2: bn1 and bn2 follow the ReLU
        EMPTY,
    ]
    assert then("custom/unet", "conv") == ["BN, ReLU"] * 18 + [EMPTY]
    # Corrected: both documents have a ReLU after the transposed convolutions of U-Net.
    assert then("custom/unet", "deconv") == [EMPTY] * 4
    assert then("custom/simplified_unet", "conv", "deconv") == ["ReLU"] * 10 + [EMPTY]
    assert then("custom/unet_valid", "deconv") == ["ReLU"] * 4
    assert then("custom/fcn", "conv", "deconv") == ["ReLU, BN"] * 10 + [EMPTY]


def test_a_library_encoder_is_one_row_and_the_resize_is_shown() -> None:
    first, *_, last = rows(tables("custom/resnet_fcn")[0])
    shown = (first["Layer"], first["Type"], first["In"], first["Out"], first["Stride"])
    assert shown == ("encoder", "resnet50", "3", "2048", "32")
    # Corrected: table 2 omits that the logits are upsampled by 2.
    assert (last["Layer"], last["Type"], last["Stride"]) == ("upsample", "bilinear", "1/2")


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("custom/fcn", {}),
        ("custom/simplified_unet", {}),
        ("custom/unet", {"bias": True}),
        ("custom/unet_valid", {}),
    ],
)
def test_parameters_follow_from_the_rows(arch: str, options: dict[str, object]) -> None:
    """Only for networks without blocks whose convolutions all have biases."""
    [table] = tables(arch, **options)
    count = 0
    for row in rows(table, "conv", "deconv"):
        height, width = map(int, row["Kernel"].split("x"))
        count += height * width * int(row["In"]) * int(row["Out"]) + int(row["Out"])
        count += 2 * int(row["Out"]) * row["Activation"].count("BN")
    assert table.caption.endswith(f": 21 classes, {count:,} parameters")


def test_enet_has_three_kinds_of_bottleneck() -> None:
    network, *blocks = tables("custom/enet")
    stage2 = [row for row in rows(network) if row["Layer"].startswith("stage2.")]
    # The paper's table 1: regular, dilated 2, asymmetric 5, dilated 4, regular, dilated 8, …
    assert [row["Dilation"] for row in stage2] == ["1", "2", "1", "4", "1", "8", "1", "16"]
    assert [row["Type"][-7:] for row in stage2] == [
        "kind 1)" if i not in (2, 6) else "kind 2)" for i in range(8)
    ]
    [asymmetric] = (t for t in blocks if "(kind 2)" in t.caption)
    names = ("In", "Out", "Kernel", "Padding", "Activation")
    assert columns(rows(asymmetric, "conv"), *names) == [
        ("128", "32", "1x1", "0", "BN, PReLU"),
        ("32", "32", "1x5", "(0, 2)", EMPTY),
        ("32", "32", "5x1", "(2, 0)", "BN, PReLU"),
        ("32", "128", "1x1", "0", "BN, dropout 0.1"),
    ]
    [down] = (t for t in blocks if "Down," in t.caption)
    assert columns(rows(down)[:2], "Type", "In", "Out") == [
        ("max-pool", "16", "16"),
        ("zero channels", "16", "64"),
    ]


@pytest.mark.parametrize("t", [2, 3])
def test_recurrent_unit_shows_how_often_it_is_applied(t: int) -> None:
    for arch, kind in (("custom/r2unet", "RecurrentUnit"), ("custom/rrcnn_fcn", "KeepingUnit")):
        made = tables(arch, t=t)
        [unit] = (table for table in made if f"{kind}, as" in table.caption)
        assert [row["Layer"] for row in rows(unit)] == [f"conv x{t + 1}", f"add x{t}"]
        assert rows(unit)[0]["Activation"] == "BN, ReLU"
        assert any("same weights" in note for note in unit.notes)
        assert not any("same weights" in note for note in made[0].notes)


def test_pyramid_pooling_has_no_strides_that_depend_on_the_image() -> None:
    [table] = tables("custom/pspnet")
    pools = rows(table, "avg-pool")
    assert [row["Kernel"] for row in pools] == ["global", "to 2x2", "to 3x3", "to 6x6"]
    assert [row["Stride"] for row in rows(table, "bilinear")] == [EMPTY] * 4 + ["1/8"]
    assert rows(table, "concat")[0]["In"] == "2048 + 4 x 512"


SOME = [
    *[arch for arch in architectures() if arch.startswith("custom/")],
    "smp/unet",
    "smp/pan",
    "smp/fpn",
    "smp/upernet",
    "torchvision/deeplabv3_resnet50",
    "torchvision/lraspp_mobilenet_v3_large",
    "timm/resnet18",
    "timm/convnext_tiny",
]


@pytest.mark.parametrize("arch", SOME)
def test_every_architecture_has_tables_in_every_format(arch: str) -> None:
    made = tables(arch)
    assert len({table.name for table in made}) == len(made)
    assert len({table.caption for table in made}) == len(made)
    for table in made:
        assert [header.title for header in table.headers] == list(HEADERS)
        names = [row["Layer"] for row in rows(table)]
        assert names
        assert len(set(names)) == len(names)
        assert re.fullmatch(r"[a-z0-9-]+", table.name)
        for _, render in FORMATS.values():
            assert names[-1].split(".")[-1].split("_")[-1] in render(table)
    kind, _, name = arch.partition("/")
    if kind == "custom":
        assert set(ARCHITECTURES[name].slips) <= set(made[0].notes)
        assert made[0].caption.startswith(ARCHITECTURES[name].title)
    assert rows(made[0])[0]["In"] == "3"
    assert any(row["Out"] == "21" for row in rows(made[0]))


def test_modules_that_wrap_one_layer_are_not_blocks() -> None:
    types = {row["Type"] for table in tables("smp/pan") for row in rows(table)}
    assert "conv" in types
    assert not any("ConvBnRelu" in kind for kind in types)


def test_a_follower_must_use_the_last_value_of_a_row() -> None:
    [table] = [t for t in tables("smp/upernet") if t.caption.startswith("smp/upernet, ")]
    assert rows(table)[0]["Activation"] == "LN"
    assert [row["Out"] for row in rows(table, "LN")] == ["128", "64", "32"]


def test_channels_last_encoder() -> None:
    [table] = tables("timm/swin_tiny_patch4_window7_224", img_size=512)
    first = rows(table)[0]
    assert (first["Out"], first["Stride"]) == ("768", "32")


class Twice(nn.Module):
    """Uses a branch and a pool twice, and functions; reads a value, so it needs a real device."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 8, (3, 1), stride=(2, 1), padding=(1, 0)))
        self.wide = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(16, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        a = torch.cat([self.branch(image), self.branch(image.flip(-1))], dim=1)
        assert a.mean().item() == a.mean().item()
        x = self.pool(F.relu(self.wide(self.pool(a[:, :8])) + 1))
        return F.interpolate(torch.sigmoid(self.head(x)), image.shape[-2:], mode="nearest")


def test_users_network_with_shared_weights_that_needs_values() -> None:
    [table] = layer_tables(f"{__name__}:Twice", {}, num_classes=4, size=64)
    assert columns(rows(table), "Layer", "Type", "In", "Out", "Stride", "Activation") == [
        ("branch x2", "conv", "3", "8", "(2, 1)", EMPTY),
        ("cat", "concat", "8 + 8", "16", EMPTY, EMPTY),
        ("pool1", "max-pool", "8", "8", "2", EMPTY),
        ("wide", "conv, 4 groups", "8", "16", "1", "ReLU"),
        ("pool2", "max-pool", "16", "16", "2", "dropout 0.5"),
        ("head", "conv", "16", "4", "1", "sigmoid"),
        ("upsample", "nearest", "4", "4", "(1/8, 1/4)", EMPTY),
    ]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("custom/darrenet", {}, "Did you mean 'custom/darrennet'"),
        ("custom/unet", {"biases": True}, "Did you mean 'bias'"),
        ("smp/unet", {"encoder": "resnet35"}, "Unknown encoder 'resnet35'"),
        ("smp/unet", {"depth": 3}, "Unknown option 'depth'"),
        ("timm/vit_tiny_patch16_224", {}, "fails at 512x512: Input height"),
    ],
)
def test_bad_names_and_options_are_user_errors(
    arch: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        layer_tables(arch, options)
