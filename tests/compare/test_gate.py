"""The gate fails on a planted regression of each kind and passes clean runs."""

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.commands.compare import compare_sides, save_baseline
from bench.cli.commands.run import run_suites
from bench.cli.console import Console
from bench.cli.options import Where
from bench.datasets.shapes import Shapes
from bench.errors import Exit
from bench.loading.transforms import Augment

NETWORK = """
from torch import nn


def build(num_classes):
    width = 12
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, num_classes, 1),
    )
"""
SUITE = """
name: gated
engine: in-process
datasets:
  shapes: {size: [32, 32], num_train: 48, num_val: 160}
models:
  net: {arch: "planted_network:build"}
  other: {arch: "planted_network:build"}
recipe:
  epochs: 14
  batch_size: 4
  optimizer: {name: adam, lr: 0.02}
  schedule: poly
  augment: [{HorizontalFlip: {p: 0.5}}]
  validate_every: 14
overrides:
  - {model: other, recipe: {epochs: 0}}
"""
SLOW = """
import time
from torch import nn


class Slow(nn.ReLU):
    def forward(self, image):
        time.sleep(0.02 if self.training and image.device.type == "cpu" else 0)
        return super().forward(image)

"""
NET, OTHER = "shapes__net__default__s0", "shapes__other__default__s0"
Run = Callable[[], Path]
Gate = Callable[..., tuple[str, Exit]]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs the suite as it is into a new folder and returns the folder."""
    return _runs_in(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a copy of the suite, which a test may change."""
    return _runs_in(tmp_path)


def _runs_in(folder: Path) -> Run:
    (folder / "planted_network.py").write_text(NETWORK)
    (folder / "gated.yaml").write_text(SUITE)
    numbers = iter(range(100))

    def run_once() -> Path:
        sys.modules.pop("planted_network", None)
        importlib.invalidate_caches()
        out = folder / f"out{next(numbers)}"
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            where = Where("cpu", out=out, loader_workers=0)
            assert run_suites([folder / "gated.yaml"], None, (), where, Console()) == Exit.OK
        return out

    return run_once


@pytest.fixture(scope="module")
def clean_out(clean: Run) -> Path:
    """Return the results of a clean run."""
    return clean()


@pytest.fixture(scope="module")
def baseline(clean: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the baseline of another clean run."""
    folder = tmp_path_factory.mktemp("baseline")
    return save_baseline(clean() / "gated", folder / "base.json", folder)


@pytest.fixture
def gate(baseline: Path) -> Gate:
    """Return a function that gates results against the baseline."""

    def compare(out: Path, *, with_time: bool = False) -> tuple[str, Exit]:
        return compare_sides(
            baseline, None, out, strict=True, with_time=with_time, factor=1.5, form="md"
        )

    return compare


def failed(printed: str) -> str:
    """Return the findings that fail the gate."""
    return "\n".join(line for line in printed.splitlines() if "**worse**" in line)


def test_a_clean_run_passes(clean_out: Path, gate: Gate) -> None:
    printed, code = gate(clean_out)
    assert code == Exit.OK, printed
    assert printed.startswith("**bench compare gated: passed, 2 cases compared, nothing worse**")
    assert "Time per image: " in printed


def test_one_channel_fewer(run: Run, gate: Gate, tmp_path: Path) -> None:
    file = tmp_path / "planted_network.py"
    file.write_text(file.read_text().replace("width = 12", "width = 11"))
    printed, code = gate(run())
    assert code == Exit.NEGATIVE
    # 3x3 kernels for 3 and for 12 channels, 1x1 kernels for 6 classes, biases, BatchNorm
    [line] = [x for x in failed(printed).splitlines() if "| parameters " in x]
    assert f"{NET}, {OTHER}" in line
    assert "1,770 → 1,524" in line
    assert "must be equal" in line
    assert "code of the network" in printed


def test_a_wrong_label_map(
    run: Run, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "BENCH_CACHE", str(tmp_path / "cache")
    )  # the correct masks are cached elsewhere
    read = Shapes.read

    def swapped(self: Shapes, sample: object) -> object:
        image, target = read(self, sample)
        mapped = target.copy()
        mapped[target == 1], mapped[target == 2] = 2, 1
        return image, mapped

    monkeypatch.setattr(Shapes, "read", swapped)
    printed, code = gate(run())
    assert code == Exit.NEGATIVE
    [line] = [x for x in failed(printed).splitlines() if "val: pixels" in x]
    for part in (NET, OTHER, "disc", "square", "must be equal"):
        assert part in line


def test_a_broken_augmentation(run: Run, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_image(self: Augment, pair: tuple, stream: tuple) -> tuple:
        return augment(self, pair, stream)[0], pair[1]

    augment = Augment.__call__
    monkeypatch.setattr(Augment, "__call__", only_the_image)
    printed, code = gate(run())
    assert code == Exit.NEGATIVE
    [line] = [line for line in failed(printed).splitlines() if "mIoU" in line]
    assert NET in line
    assert " points at 9" in line
    assert "1 seed each, assumed standard deviation 1 points)" in line


def test_a_slower_step(run: Run, gate: Gate, tmp_path: Path) -> None:
    text = (tmp_path / "planted_network.py").read_text().replace("nn.ReLU()", "Slow()")
    (tmp_path / "planted_network.py").write_text(SLOW + text)
    out = run()
    printed, code = gate(out)
    assert code == Exit.OK
    assert "worse (advice)" in printed
    printed, code = gate(out, with_time=True)
    assert code == Exit.NEGATIVE
    [line] = [line for line in failed(printed).splitlines() if "time per image" in line]
    assert NET in line
    assert "factor 1.5, Mann-Whitney p = " in line


def test_a_case_that_vanished(clean_out: Path, gate: Gate, tmp_path: Path) -> None:
    out = Path(shutil.copytree(clean_out, tmp_path / "out"))
    [folder] = (out / "gated").glob(f"{OTHER}*")
    shutil.rmtree(folder)
    printed, code = gate(out)
    assert code == Exit.NEGATIVE
    assert OTHER in failed(printed)
    assert "must exist" in failed(printed)


def test_a_case_that_fails(clean_out: Path, gate: Gate, tmp_path: Path) -> None:
    """Only the record is changed; the runner's tests check that failures are recorded."""
    out = Path(shutil.copytree(clean_out, tmp_path / "out"))
    for file in (out / "gated").glob(f"{NET}*/record.json"):
        text = file.read_text().replace('"status": "ok"', '"status": "failed"', 1)
        file.write_text(text.replace('"reason": null', '"reason": "it\\nbroke"', 1))
    printed, code = gate(out)
    assert code == Exit.NEGATIVE
    assert NET in failed(printed)
    assert "ok → failed: it broke" in failed(printed)


def test_an_empty_run(gate: Gate, tmp_path: Path) -> None:
    for out in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        printed, code = gate(out)
        assert code == Exit.NOTHING_COMPARED
        assert printed.startswith("**bench compare gated: nothing was compared**")
        assert NET in failed(printed)


@pytest.mark.slow
def test_clean_runs_pass_every_time(clean: Run, gate: Gate) -> None:
    for _ in range(20):
        printed, code = gate(clean())
        assert code == Exit.OK, printed
