"""What was checked before is not checked again, and needs no torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import bench
from conftest import ROOT, TINY

from bench.errors import UserError
from bench.runner import remembered
from bench.runner.validate import check, load_checked
from bench.suite import expand as expanding
from bench.suite.expand import expand, in_order
from bench.suite.load import load

HEAVY = ["torch", "torchvision", "timm", "segmentation_models_pytorch", "albumentations", "cv2"]


def imported(*words: object, cache: Path) -> list[str]:
    """Return the heavy packages that a command imports."""
    code = (
        "import sys\nfrom bench.cli.app import app\n"
        f"try:\n    app({[str(word) for word in words]!r})\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = os.environ | {"BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return eval(done.stdout.splitlines()[-1])


def test_what_is_known_needs_no_torch(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite, cache, out = write_suite(), tmp_path / "cache", tmp_path / "out"
    bench("validate", suite, BENCH_CACHE=str(cache))
    assert imported("validate", suite, cache=cache) == []
    assert imported("run", suite, "--out", out, "--dry-run", cache=cache) == []
    bench("run", suite, "--out", out, "--device", "cpu", BENCH_CACHE=str(cache))
    assert imported("run", suite, "--out", out, cache=cache) == []
    assert imported("run", suite, "--out", out, "--dry-run", cache=tmp_path / "empty") != []
    plain = write_suite(TINY.replace("  augment: [{HorizontalFlip: {p: 0.5}}]\n", ""))
    assert "torch" in imported("validate", plain, cache=cache)  # another recipe


def test_faults_are_found_each_time(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    file = write_suite(TINY.replace("batch_size: 4", "batch_size: 99"))
    loaded = load_checked(file)
    for _ in range(2):
        with pytest.raises(UserError, match="16 training images cannot fill a batch"):
            check(loaded, loaded.cases(), {}, need_data=True)


def test_other_code_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered.remember("test", [1, "a"], {"found": 2})
    assert remembered.recall("test", [1, "a"]) == {"found": 2}
    assert remembered.recall("test", [1, "b"]) is None
    monkeypatch.setattr(remembered, "_code", lambda: "changed")
    assert remembered.recall("test", [1, "a"]) is None


def test_the_code_of_a_network_is_hashed_once(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(arch: str) -> str | None:
        asked.append(arch)
        return None

    monkeypatch.setattr(expanding, "source_hash", noted)
    text = TINY.replace("enet: {arch", "b: {arch: custom/enet}\n  enet: {arch")
    cases = expand(load(write_suite(text + "seeds: [0, 1, 2]\n")).suite)
    assert len(cases) == 6
    assert asked == ["custom/enet"]
    assert in_order(cases) == cases
