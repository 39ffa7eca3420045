"""Whole cases that two processes train together, on the CPU by gloo."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLOCKS, ROOT, TINY

from bench.errors import UserError
from bench.machine.files import read_json
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.frame import load as load_frame
from bench.records.record import Record, read_evaluations, read_record
from bench.runner.engines import processes, ranks
from bench.runner.engines.processes import Slot
from bench.runner.gpus_per_case import as_started
from bench.runner.placing import Placing
from bench.runner.plan import plan
from bench.runner.run_suite import plan_suites, require_engines, run_planned
from bench.runner.task import Options, Outcome
from bench.runner.validate import check
from bench.suite.expand import expand
from bench.suite.load import load

ODD = TINY.replace("num_val: 6", "num_val: 7")
Run = Callable[..., Outcome]


@pytest.fixture
def run(write_suite: Callable[..., Path], tmp_path: Path) -> Run:
    """Run the only case of the tiny suite, with 7 images in val, by two processes or by one."""

    def run_case(
        *settings: str,
        out: str = "two",
        size: int = 2,
        timeout_s: float | None = None,
        **more: object,
    ) -> Outcome:
        file = load(write_suite(ODD), settings)
        [case] = expand(file.suite)
        checked = check(file, [case], {}, need_data=True)
        planned = plan(file.suite, [case], tmp_path / out, checked)
        engine = partial(processes.run, slots=[Slot(size=size)], timeout_s=timeout_s)
        [outcome] = run_planned(planned, Options(device="cpu", loader_workers=0, **more), engine)
        return outcome

    return run_case


def folder_of(tmp_path: Path, out: str = "two") -> CaseFolder:
    [folder] = (tmp_path / out).iterdir()
    return CaseFolder(folder)


def record_of(tmp_path: Path, out: str = "two") -> Record:
    record = read_record(folder_of(tmp_path, out).path)
    assert record is not None
    return record


def history_of(tmp_path: Path, out: str) -> list[dict[str, float]]:
    rows = csv.DictReader(folder_of(tmp_path, out).history.read_text().splitlines())
    return [{k: float(v) for k, v in row.items() if k not in CLOCKS} for row in rows]


def test_the_same_case_and_record(run: Run, tmp_path: Path) -> None:
    settings = ("models.enet.arch=planted:good", "recipe.accumulate=2")
    assert run(*settings, out="one", size=1).status == "ok"
    assert run(*settings).status == "ok"
    one, two = record_of(tmp_path, "one"), record_of(tmp_path)
    assert one.id == two.id
    assert {key for key in one.numerics if one.numerics[key] != two.numerics[key]} == {"world_size"}
    assert two.numerics["world_size"] == 2
    assert one.complexity == two.complexity
    assert one.training is not None
    assert two.training is not None
    for name in ("epochs", "steps", "num_train", "chosen_epoch", "resumed"):
        assert getattr(one.training, name) == getattr(two.training, name)
    for a, b in zip(history_of(tmp_path, "one"), history_of(tmp_path, "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-5, nan_ok=True)
    a, b = (read_weights(folder_of(tmp_path, out).weights) for out in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)
    files = [sorted(p.name for p in folder_of(tmp_path, o).path.rglob("*")) for o in ("one", "two")]
    assert sorted([*files[0], "log.rank1.txt"]) == files[1]
    frame = load_frame(tmp_path / "two")
    assert frame["machine"].str.endswith("1 thread x 2").all()


def test_each_image_is_scored_once(run: Run, tmp_path: Path) -> None:
    for out, size in (("one", 1), ("two", 2)):
        assert run("recipe.epochs=0", out=out, size=size).status == "ok"
    one, two = (
        np.load(folder_of(tmp_path, out).evaluation("val").with_suffix(".npz"))
        for out in ("one", "two")
    )
    assert len(set(two["ids"])) == 7
    for name in ("ids", "per_image", "confusion"):
        assert np.array_equal(one[name], two[name])
    a, b = (
        {e.name: e for e in read_evaluations(folder_of(tmp_path, out).path)}["val"]
        for out in ("one", "two")
    )
    assert a.scores == pytest.approx(b.scores, rel=1e-6)
    assert a.num_images == b.num_images == 7


def test_stopped_and_resumed_it_ends_like_one_that_was_not(run: Run, tmp_path: Path) -> None:
    settings = ("models.enet.arch=planted:dropping", "recipe.epochs=8", "recipe.checkpoint=best")
    assert run(*settings, out="whole").status == "ok"

    def trains() -> bool:
        beat = read_json(folder_of(tmp_path).alive) if (tmp_path / "two").exists() else None
        return isinstance(beat, dict) and beat.get("step", 0) > 5

    outcome = run(*settings, should_stop=trains)
    assert (outcome.status, str(outcome.reason)[:11]) == ("interrupted", "after step "), outcome
    refused = run(*settings, size=1)
    assert refused.status == "failed"
    assert "made with world_size 2; this run uses world_size 1" in str(refused.reason)
    assert read_record(folder_of(tmp_path).path) is None
    assert run(*settings).status == "ok"
    training = record_of(tmp_path).training
    assert training is not None
    assert training.resumed == 1
    a, b = (read_weights(folder_of(tmp_path, out).weights) for out in ("whole", "two"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert history_of(tmp_path, "whole") == history_of(tmp_path, "two")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("kills_second", "rank 1 of 2 was ended by SIGKILL"),
        (
            "fails_second",
            "rank 1 of 2: ValueError: planted: only here (traceback in log.rank1.txt)",
        ),
        ("kills_first", "rank 0 of 2 was ended by SIGKILL"),
    ],
)
def test_what_ends_one_process_ends_the_case(
    run: Run, tmp_path: Path, what: str, expected: str
) -> None:
    outcome = run(f"models.enet.arch=planted:{what}", "recipe.epochs=3")
    assert outcome.status == "failed"
    assert str(outcome.reason).startswith(expected)
    record = record_of(tmp_path)
    assert record.reason == outcome.reason
    assert record.failure is not None
    assert record.failure.log_tail
    with folder_of(tmp_path).hold():  # no process is left
        pass


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_with_the_case(run: Run, tmp_path: Path) -> None:
    outcome = run("models.enet.arch=planted:hangs_second", "recipe.epochs=3", timeout_s=20.0)
    assert "ran for more than 20 s" in str(outcome.reason)
    log = folder_of(tmp_path).path / "log.rank1.txt"
    assert "misbehave" in log.read_text()


def test_a_loss_that_is_none_is_told_by_the_first(run: Run, tmp_path: Path) -> None:
    outcome = run("models.enet.arch=planted:nan")
    assert outcome.status == "failed"
    assert str(outcome.reason).startswith("The training loss is nan in epoch 2, step 6 of 8")


def test_the_machine_is_divided_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["0", "1", "2", "3"])
    cpu, gpus = torch.device("cpu"), torch.device("cuda")
    first, second = processes.divide(2, gpus, 2)
    assert (first.gpus, second.gpus) == (("0", "1"), ("2", "3"))
    assert not set(first.cores) & set(second.cores)
    parts = [first.part(0), first.part(1)]
    assert [part.gpus for part in parts] == [("0",), ("1",)]
    assert [len(part.cores) for part in parts] == [2, 2]
    assert processes.divide(1, cpu, 2)[0].gpus == ()
    with pytest.raises(UserError, match="--workers 2 with --gpus-per-case 3 needs 6 GPUs"):
        processes.divide(2, gpus, 3)
    with pytest.raises(UserError, match="--gpus-per-case 10: this machine has cores"):
        processes.divide(1, cpu, 10)
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["MIG-a", "MIG-b"])
    with pytest.raises(UserError, match="cannot train on MIG slices"):
        processes.divide(1, gpus, 2)


def test_processes_that_share_a_gpu_meet_by_gloo() -> None:
    assert [p and p.backend for p in ranks.meeting(("0",), 1)[1]] == [None]
    for gpus, backend in ((("0", "1"), "nccl"), (("0", "0"), "gloo"), ((), "gloo")):
        store, places = ranks.meeting(gpus, 2)
        assert store is not None
        store.rmdir()
        assert [p and p.backend for p in places] == [backend] * 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("recipe.accumulate=4",), "cannot divide 1 image at once (batch_size 4, accumulate 4)"),
        (("recipe.batch_size=3",), "cannot divide 3 images at once (batch_size 3) into"),
        (("recipe.compile=default",), "cannot be compiled"),
        (("engine=in-process",), "give --engine process"),
    ],
)
def test_what_several_gpus_cannot_do(
    write_suite: Callable[..., Path], tmp_path: Path, settings: tuple[str, ...], expected: str
) -> None:
    suite = write_suite(ODD.replace("engine: in-process", "engine: process"))
    options = Options(device="cpu")
    planned = plan_suites([suite], settings, None, tmp_path, options, need_data=True)
    with pytest.raises(UserError) as error:
        require_engines(planned, options, Placing(gpus_per_case=2))
    assert expected in str(error.value)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "0"}


def test_torchrun_says_how_many_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_started(Placing()) == Placing()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert as_started(Placing()) == as_started(Placing(gpus_per_case=4)) == Placing(gpus_per_case=4)
    with pytest.raises(UserError, match="started 4 processes, but --gpus-per-case is 2"):
        as_started(Placing(gpus_per_case=2))
    monkeypatch.setenv("RANK", "3")
    assert as_started(Placing()) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="4 processes on several machines"):
        as_started(Placing())


@pytest.mark.slow
def test_started_by_torchrun(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "bench", "run", str(write_suite(ODD)), "--out", str(out), "--device", "cpu"]
    words += ["--engine", "process"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = [read_record(file.parent) for file in out.rglob("record.json")]
    assert record is not None
    assert record.numerics["world_size"] == 2
    assert done.stdout.count("[1/1]") == 1
