"""Shared fixtures: tiny suites on generated images, and the real data in ../shared."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

TINY = """
name: tiny
engine: in-process
datasets:
  shapes: {size: [32, 32], num_train: 16, num_val: 6}
models:
  enet: {arch: custom/enet}
recipe:
  epochs: 2
  batch_size: 4
  precision: fp32
  optimizer: {name: adam, lr: 1e-3}
  augment: [{HorizontalFlip: {p: 0.5}}]
"""

CLOCKS = (  # columns of a history that may differ between a killed run and an uninterrupted one
    *("seconds", "data_wait_s", "images_per_s", "validation_s", "reference_s"),
    *("peak_memory_mib", "warm_up"),
)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Do not touch the user's own cache; the tests of one process share one, and count as alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_RUNNING", str(tmp_path_factory.getbasetemp() / "running"))
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def _only_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose only font is the one that ships with matplotlib."""
    from bench.machine import fonts

    monkeypatch.setattr(fonts, "_others", tuple)
    fonts._fonts_for.cache_clear()
    yield
    fonts._fonts_for.cache_clear()


@pytest.fixture
def shared() -> Path:
    """The folder of real images and weights; tests that need it are skipped without it."""
    if not (SHARED / "data" / "camvid" / "train.txt").is_file():
        pytest.skip("needs the real images of ../shared, which are not here")
    return SHARED


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a suite file, by default the tiny one with text replaced."""

    def write(text: str = TINY, replace: dict[str, str] | None = None, name: str = "suite") -> Path:
        for old, new in (replace or {}).items():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        return file

    return write
