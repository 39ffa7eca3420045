"""A run killed by SIGKILL continues and ends with the numbers of an uninterrupted one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY

from bench.record import CaseFolder, read_evaluations, read_record
from bench.weights import read_weights

SUITE = TINY.replace("epochs: 2", "epochs: 4").replace("num_train: 16", "num_train: 32")
# Checkpoints come at every epoch, so that a kill finds one.
RUN = """
import sys
from bench import training
training.CHECKPOINT_EVERY_S = 0.0
from bench.__main__ import main
main(sys.argv[1:])
"""


def start(suite: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", RUN, "run", str(suite), "--out", str(out), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )


def only_folder(out: Path) -> CaseFolder:
    [folder] = [f for f in (out / "tiny").iterdir() if f.is_dir() and f.name != "report"]
    return CaseFolder(folder)


@pytest.mark.parametrize(
    "num_kills", [3, pytest.param(30, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_runs_end_alike(
    write_suite: Callable[..., Path], tmp_path: Path, num_kills: int
) -> None:
    suite = write_suite(SUITE)
    begun = time.monotonic()
    process = start(suite, tmp_path / "whole")
    assert process.wait(timeout=300) == 0
    length = time.monotonic() - begun
    whole = only_folder(tmp_path / "whole")
    expected = read_weights(whole.weights)
    rng = random.Random(0)
    resumed = 0
    for kill in range(num_kills):
        out = tmp_path / f"killed{kill}"
        process = start(suite, out)
        time.sleep(length * rng.uniform(0.4, 0.95))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start(suite, out)
        assert process.wait(timeout=300) == 0
        case = only_folder(out)
        found = read_weights(case.weights)
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        one, two = (
            [(e.name, e.scores, e.class_iou) for e in read_evaluations(folder.path)]
            for folder in (whole, case)
        )
        assert one == two
        record = read_record(case.path)
        assert record is not None
        assert record.training is not None
        resumed += record.training.resumed
        assert len(case.history.read_text().splitlines()) == 5
    assert num_kills < 10 or resumed > 0
