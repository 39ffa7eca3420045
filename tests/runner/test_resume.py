"""A run killed by SIGKILL continues and ends with the numbers of an uninterrupted one."""

import csv
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import Forked
from conftest import CLOCKS, TINY

from bench.machine.files import read_json
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.record import read_evaluations, read_record

SUITE = (
    TINY.replace("epochs: 2", "epochs: 4")
    .replace("num_train: 16", "num_train: 32")
    .replace("precision: fp32", "precision: bf16\n  memory_format: channels_last")
)
# Checkpoints are saved every epoch, so that there is one at every kill.
OFTEN = """
from bench.training import trainer
trainer.CHECKPOINT_EVERY_S = 0.0
"""
# Each kills its process (SIGKILL) at the given call of a function, before or within it.
KILL = """
import importlib
def plant(module, name, times):
    module = importlib.import_module(module)
    function = getattr(module, name)
    def deadly(*args, **kwargs):
        nonlocal times
        times -= 1
        if times == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(module, name, deadly)
"""
CUT = """
def half(number):
    file = os.readlink(f"/proc/self/fd/{number}")
    if ".last.pt" in file and os.path.exists(os.path.join(os.path.dirname(file), "last.pt")):
        os.ftruncate(number, os.fstat(number).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(number)
whole, os.fsync = os.fsync, half
"""
BETWEEN = """
def deadly(source, target):
    replace(source, target)
    if str(target).endswith("previous.pt"):
        os.kill(os.getpid(), signal.SIGKILL)
replace, os.replace = os.replace, deadly
"""
PHASES = {
    "start": KILL + "plant('bench.runner.attempt', 'build_model', 1)",
    "mid-epoch": KILL + "plant('bench.training.loop', 'set_learning_rate', 8 + 5)",
    "validation": KILL + "plant('bench.evaluation.inference', 'count_pixels', 3)",
    "write": CUT,
    "between two files of a write": BETWEEN,
    "scoring": KILL + "plant('bench.runner.evaluate', 'EvaluationRecord', 2)",
    "record": KILL + "plant('bench.runner.attempt', 'complexity', 1)",
    "after the record": KILL + "plant('bench.runner.run_case', 'drop_checkpoints', 1)",
}


def start(suite: Path, out: Path, *flags: str, plant: str = "") -> Forked:
    args = ("run", suite, "--out", out, "--device", "cpu", *flags)
    return Forked(*args, out=suite.with_name(f"{out.name}.txt"), plant=OFTEN + plant)


def only_folder(out: Path) -> CaseFolder:
    [folder] = [f for f in (out / "tiny").iterdir() if f.is_dir() and f.name != "report"]
    return CaseFolder(folder)


def results(folder: CaseFolder) -> object:
    """Return everything that must be equal after a kill, so no times."""
    rows = csv.DictReader(folder.history.read_text().splitlines())
    history = [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
    return history, [(e.name, e.scores, e.class_iou) for e in read_evaluations(folder.path)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CaseFolder, float]:
    """The suite's file, its case's folder after an uninterrupted run, and how long that took."""
    folder = tmp_path_factory.mktemp("whole")
    suite = folder / "suite.yaml"
    suite.write_text(SUITE)
    begun = time.monotonic()
    assert start(suite, folder).wait() == 0
    return suite, only_folder(folder), time.monotonic() - begun


def end_cases(out: Path, at_once: bool) -> None:
    """Kill the case processes too, or let them notice that their driver is gone."""
    while beats := [read_json(file) for file in out.rglob("alive.json")]:
        pids = [beat["pid"] for beat in beats if beat is not None]
        if at_once:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            time.sleep(0.02)
        if at_once:
            return


def assert_alike(one: CaseFolder, other: CaseFolder) -> None:
    a, b = read_weights(one.weights), read_weights(other.weights)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert results(one) == results(other)
    assert not other.has_checkpoint


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_every_phase(
    whole: tuple[Path, CaseFolder, float], tmp_path: Path, phase: str
) -> None:
    suite, expected, _ = whole
    assert start(suite, tmp_path, plant=PHASES[phase]).wait() == -signal.SIGKILL
    assert start(suite, tmp_path).wait() == 0
    assert_alike(expected, only_folder(tmp_path))


@pytest.mark.parametrize("engine", ["process", "in-process"])
@pytest.mark.parametrize(
    "num_kills", [1, pytest.param(50, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_random(
    whole: tuple[Path, CaseFolder, float], tmp_path: Path, num_kills: int, engine: str
) -> None:
    suite, expected, length = whole
    rng = random.Random(0)
    resumed = 0
    for kill in range(num_kills):
        out = tmp_path / f"killed{kill}"
        process = start(suite, out, "--engine", engine)
        while not list(out.rglob("case.json")):  # a process of the case starts slowly
            assert process.is_running
            time.sleep(0.01)
        time.sleep(length * rng.uniform(0, 1))
        process.kill()
        if engine == "process":
            end_cases(out, at_once=rng.random() < 0.5)
        process = start(suite, out, "--engine", engine)
        assert process.wait() == 0
        case = only_folder(out)
        assert_alike(expected, case)
        record = read_record(case.path)
        assert record is not None
        assert record.training is not None
        resumed += record.training.resumed
    assert num_kills < 10 or resumed > 0
