"""Operations of training, counted by hand, and their share of what the machine can do."""

from pathlib import Path

import pytest
import torch
from conftest import TINY
from fixtures import make_results
from torch import nn

import bench
from bench.machine.peak import peak_tflops
from bench.models.complexity import complexity
from bench.models.counts import read_complexity
from bench.models.geometry import Geometry
from bench.suite.model import ModelSpec

SIDE, NUM_CLASSES = 8, 4
PIXELS = SIDE * SIDE


def dense(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, num_classes, 1))


def grouped(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, num_classes, 1)
    )


def upsampling(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 1, stride=2), nn.ConvTranspose2d(6, num_classes, 2, 2))


@pytest.mark.parametrize(
    ("build", "forward", "first"),  # multiply-accumulates of a pixel; the first layer's
    [
        ("dense", 27 * 6 + 6 * NUM_CLASSES, 27 * 6),
        ("grouped", 3 * 6 + 9 * 6 + 6 * NUM_CLASSES, 3 * 6),
        ("upsampling", 3 * 6 / 4 + 6 * NUM_CLASSES, 3 * 6 / 4),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_operations_of_training(build: str, forward: float, first: float, batch: int) -> None:
    spec = ModelSpec.model_validate({"arch": f"{__name__}:{build}"})
    found = complexity(spec, NUM_CLASSES, (SIDE, SIDE), Geometry(2, 2), batch)
    assert found.gmacs == pytest.approx(PIXELS * forward / 1e9)
    # Each layer has two gradients, of its image and its weights; the first needs one.
    expected = 2 * PIXELS * (3 * forward - first) / 1e9
    assert found.train_gflops == pytest.approx(expected)


def test_counts_of_old_records_are_read() -> None:
    spec = ModelSpec.model_validate({"arch": f"{__name__}:dense"})
    found = complexity(spec, NUM_CLASSES, (SIDE, SIDE), Geometry(2, 2), 1)
    stored = vars(found) | {"size": list(found.size), "checkpoint_bytes": 3}
    assert read_complexity(stored) == found
    old = read_complexity({k: v for k, v in stored.items() if k != "train_gflops"})
    assert old is not None
    assert old.train_gflops is None
    assert read_complexity({k: v for k, v in stored.items() if k != "shapes"}) is None


def test_a_matrix_product_is_the_limit(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(TINY)
    bench.run(tmp_path / "suite.yaml", out=tmp_path / "out", device="cpu")
    [row] = bench.load(tmp_path / "out").query("evaluation == 'val'").to_dict("records")
    assert 0 < row["mfu"] < 1.5
    assert row["tflops"] == pytest.approx(
        row["mfu"] * peak_tflops(torch.device("cpu"), "fp32"), rel=0.9
    )
    [text] = [str(one) for one in bench.report(tmp_path / "out" / "tiny", tables=["complexity"])]
    assert "Achieved (TFLOP/s)" in text
    assert "MFU: their share of what a large matrix product reaches" in text
    old = str(bench.report(make_results(tmp_path / "old"), tables=["complexity"])[0])
    assert "TFLOP" not in old
