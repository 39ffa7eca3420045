"""What became of a suite's cases so far, from their folders alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Forked, bench
from conftest import ROOT
from fixtures import make_results

from bench.errors import UserError
from bench.machine import lease
from bench.records.case_folder import CaseFolder
from bench.runner.status import find_folders, read_status

SUITE = """
name: seen
datasets: {shapes: {size: [16, 16], num_train: 16, num_val: 2}}
models: {enet: {arch: custom/enet}}
recipe: {epochs: 400, batch_size: 4, precision: fp32, memory_format: contiguous}
seeds: [0, 1, 2]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished suite of which two cases are begun again: one elsewhere, one not running."""
    folder = make_results(tmp_path)
    first, second, third, *_ = sorted(folder.glob("*/record.json"))
    first.unlink()
    owner = {"host": "gpu7", "pid": 12, "machine": "m", "start": 1, "token": "t"}
    (first.parent / "lease.1").write_text(json.dumps(owner) + "\n")
    beat = {"pid": 12, "host": "gpu7", "device": "H200", "epoch": 3, "num_epochs": 9, "loss": 0.25}
    more = {"miou": 0.5, "images_per_s": 80.0, "left_s": 90.0, "step": 4, "num_steps": 18}
    (first.parent / "alive.json").write_text(json.dumps(beat | more))
    second.unlink()
    (second.parent / "last.pt").touch()
    record = json.loads(third.read_text()) | {"status": "failed", "reason": "memory ran out"}
    third.write_text(json.dumps(record))
    return folder


def test_each_case_has_a_state(folder: Path) -> None:
    found = read_status(folder)
    states = [case.state for case in found.cases]
    assert [states.count(one) for one in ("running", "interrupted", "failed")] == [1, 1, 2]
    [running] = found.having("running")
    assert (running.host, running.pid, running.device) == ("gpu7", 12, "H200")
    assert running.progress is not None
    assert running.progress["left_s"] == 90.0
    assert running.silent_s is not None
    assert running.silent_s < 60
    assert "memory ran out" in [case.reason for case in found.having("failed")]
    assert not found.is_over
    assert found.left_s is not None
    assert found.left_s >= 90.0


def test_what_is_shown(folder: Path, tmp_path: Path) -> None:
    shown = bench("status", "--results", folder.parent).stdout
    assert "2 failed, 1 running, 1 interrupted" in shown
    for text in ("gpu7 (12)", "H200", "3/9", "0.2500", "50.00", "80.0 img/s", "1 min 30 s"):
        assert text in shown, text
    assert "failed: memory ran out" in shown
    lines = bench("status", folder, "--json").stdout.splitlines()
    assert {json.loads(line)["state"] for line in lines} >= {"running", "failed", "interrupted"}


def test_a_case_that_is_tried_again_runs(folder: Path) -> None:
    [failed] = [c for c in read_status(folder).having("failed") if "ran out" in str(c.reason)]
    with CaseFolder(failed.folder).hold():
        assert failed.name in [case.name for case in read_status(folder).having("running")]


def test_the_name_of_a_suite_that_has_run(folder: Path) -> None:
    assert find_folders([folder.name], folder.parent) == [folder]


@pytest.mark.parametrize("command", ["status", "run"])
def test_a_wrong_silence_is_told_at_once(folder: Path, command: str) -> None:
    target = folder if command == "status" else "quick"
    said = bench(command, target, code=2, BENCH_LEASE_S="abc").stderr
    assert said == "Error: BENCH_LEASE_S must be a number of seconds, not 'abc'.\n"


def test_a_silent_host_is_named(folder: Path) -> None:
    [file] = folder.glob("*/lease.1")
    for one in (file, file.parent / "alive.json"):
        os.utime(one, (time.time() - 500, time.time() - 500))
    [running] = read_status(folder).having("running")
    assert running.may_be_dead
    assert "bench run --wait takes them over" in bench("status", folder).stdout


def test_a_running_driver_is_seen_from_outside(tmp_path: Path) -> None:
    suite, out = tmp_path / "s.yaml", tmp_path / "out"
    suite.write_text(SUITE)
    driver = Forked("run", suite, "--out", out, "--device", "cpu", out=tmp_path / "driver.txt")
    try:
        end = time.monotonic() + 120
        while True:
            assert time.monotonic() < end, driver.text
            assert driver.is_running, driver.text
            time.sleep(0.2)
            if not (out / "seen" / "suite.json").exists():
                continue
            running = read_status(out / "seen").having("running")
            if running and "left_s" in (running[0].progress or {}):
                break
        assert running[0].device == "cpu"
        assert running[0].silent_s < 60
        assert len(read_status(out / "seen").having("waiting")) == 2
    finally:
        driver.send_signal(15)
        driver.wait(60)
    states = [case.state for case in read_status(out / "seen").cases]
    assert states == ["interrupted", "waiting", "waiting"]


def test_places_without_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is neither a suite nor a folder of results"):
        find_folders([], tmp_path)
    with pytest.raises(UserError, match="Nothing of quick has run here"):
        find_folders(["quick"], tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "suite.json").write_text("{}")
    with pytest.raises(UserError, match=r"suite\.json is not a saved suite"):
        read_status(tmp_path / "a")


def test_neither_torch_nor_pandas_is_imported(folder: Path) -> None:
    code = (
        "import sys; from bench.__main__ import main\n"
        f"try: main(['status', {str(folder)!r}])\n"
        "finally: print([m for m in ('torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_leases_of_this_process_are_seen(tmp_path: Path) -> None:
    folder = CaseFolder(make_results(tmp_path))
    place = sorted(folder.path.glob("*/record.json"))[0].parent
    (place / "record.json").unlink()
    with CaseFolder(place).hold():
        [running] = read_status(folder.path).having("running")
        assert running.pid == os.getpid()
    assert read_status(folder.path).having("running") == []
    assert lease.is_free(lease.latest(CaseFolder(place).lease))
