"""Several drivers on one folder: nothing is run twice, and what a dead host left is taken over."""

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Forked
from commands import bench as command

import bench
from bench.machine import lease
from bench.records.case_folder import CaseFolder, Held
from bench.records.heartbeat import Heartbeat
from bench.records.record import read_record
from bench.runner import elsewhere
from bench.runner import run_case as run_case_module
from bench.runner.engines.submission import ROOM, submitting
from bench.runner.result import CaseResult
from bench.runner.shard import Shard, read_shard
from bench.runner.task import Outcome
from bench.suite.load import load

SUITE = """
name: several
datasets: {shapes: {size: [16, 16], num_train: 8, num_val: 2}}
models:
  first: {arch: custom/enet}
  second: {arch: custom/enet, init_from: {model: first}}
recipe: {epochs: 1, batch_size: 4, precision: fp32, memory_format: contiguous}
seeds: [0, 1]
"""
SHORT_S = 0.6


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.VARIABLE, str(SHORT_S))
    monkeypatch.setattr(elsewhere, "POLL_S", 0.05)


@pytest.fixture
def suite(write_suite: Callable[..., Path]) -> Path:
    return write_suite(SUITE)


@pytest.fixture
def run(suite: Path, tmp_path: Path) -> Callable[..., dict[str, CaseResult]]:
    def run_suite(**options: object) -> dict[str, CaseResult]:
        done = bench.run(suite, out=tmp_path, device="cpu", engine="in-process", **options)
        return {result.case: result for result in done}

    return run_suite


def folder_of(suite: Path, out: Path, name: str) -> CaseFolder:
    [case] = [case for case in load(suite).cases() if case.name == name]
    return CaseFolder(out / "several" / case.folder)


def leave_lease(folder: CaseFolder) -> Path:
    """Write the lease of a process on another host."""
    folder.path.mkdir(parents=True)
    folder.case.write_text("{}")
    file = folder.path / "lease.7"
    owner = {"host": "other", "pid": 4, "machine": "m", "start": 1, "token": "t"}
    file.write_text(f"{json.dumps(owner)}\n")
    return file


def lease_of_another(folder: CaseFolder) -> None:
    """Let another host take a case over."""
    owner = {"host": "other", "pid": 4, "machine": "m", "start": 1, "token": "t"}
    (folder.path / "lease.9").write_text(f"{json.dumps(owner)}\n")


@contextmanager
def living(file: Path) -> Iterator[threading.Event]:
    """Touch a lease, as its holder does, until the body ends."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(SHORT_S / 6):
            os.utime(file)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield ended
    finally:
        ended.set()
        thread.join()


FIRST, CHILD = "shapes__first__default__s0", "shapes__second__default__s0"


def test_what_a_dead_host_left_is_taken_over(
    suite: Path, tmp_path: Path, run: Callable[..., dict[str, CaseResult]]
) -> None:
    file = leave_lease(folder_of(suite, tmp_path, FIRST))
    done = run()
    assert len(done) == 4
    assert {one.status for one in done.values()} == {"ok"}
    assert not file.exists()


def test_what_runs_elsewhere_is_told(
    suite: Path, tmp_path: Path, run: Callable[..., dict[str, CaseResult]]
) -> None:
    folder = folder_of(suite, tmp_path, FIRST)
    with living(leave_lease(folder)):
        done = run()
        said = command("run", suite, "--out", tmp_path, "--device", "cpu", code=5).stdout
        with pytest.warns(UserWarning, match=f"1 case in .* still running: {FIRST} on other"):
            bench.load(tmp_path)
    assert (done[FIRST].status, done[FIRST].reason) == ("held", "running on other (process 4)")
    assert (done[CHILD].status, done[CHILD].reason) == ("held", f"{FIRST} has not finished")
    assert done[FIRST.replace("s0", "s1")].status == "ok"
    assert f"{FIRST}: held: running on other (process 4)" in said


def test_waiting_for_what_runs_elsewhere(
    suite: Path, tmp_path: Path, run: Callable[..., dict[str, CaseResult]]
) -> None:
    run(pattern=FIRST)
    folder = folder_of(suite, tmp_path, FIRST)
    record = read_record(folder.path)
    shutil.move(folder.path, tmp_path / "theirs")
    file = leave_lease(folder)

    def finish() -> None:
        time.sleep(3 * SHORT_S)  # longer than silence may last
        for left in (tmp_path / "theirs").iterdir():
            if not left.name.startswith("lease"):
                shutil.move(left, folder.path / left.name)

    other = threading.Thread(target=finish)
    with living(file):
        other.start()
        done = run(wait=True)
        other.join()
    assert {one.status for one in done.values()} == {"ok"}
    assert read_record(folder.path) == record
    assert (done[FIRST].seconds, done[FIRST].notes) == (0.0, ("another driver ran it",))


def test_a_host_that_lost_its_case_leaves_the_other_ones_record(
    suite: Path,
    tmp_path: Path,
    run: Callable[..., dict[str, CaseResult]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = folder_of(suite, tmp_path, FIRST)

    def fails_late(*args: object) -> object:
        lease_of_another(folder)
        folder.record.write_text("theirs")
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(run_case_module, "run_to_record", fails_late)
    task = next(one.task for one in _planned(suite, tmp_path) if one.case.name == FIRST)
    outcome = run_case_module.run_case(task, elsewhere.Options(device="cpu"))
    assert outcome.status == "held"
    assert "took it over" in str(outcome.reason)
    assert folder.record.read_text() == "theirs"


def test_a_heartbeat_knows_the_lease_with_which_its_case_began(tmp_path: Path) -> None:
    folder = CaseFolder(tmp_path)
    with folder.hold() as held:
        lease_of_another(folder)
        heartbeat = Heartbeat(held, lambda: False)
        heartbeat.last -= 100
        with pytest.raises(Held, match="running on other"):
            heartbeat()


def test_what_starts_from_a_case_that_left_no_record_is_not_waited_for(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [one.task for one in _planned(suite, tmp_path) if one.case.seed == 0]

    def refuses(some: list) -> Iterator[Outcome]:
        for task in some:
            status = "failed" if task.case.parent is None else "held"
            yield Outcome(task.case, status, "refused")

    options = elsewhere.Options(device="cpu")
    outcomes = list(elsewhere.run_with_others(tasks, refuses, options, wait=True))
    assert [(one.case.model_name, one.status) for one in outcomes] == [
        ("first", "failed"),
        ("second", "held"),
    ]


def test_a_case_that_others_may_not_take_over_is_told(
    suite: Path, tmp_path: Path, run: Callable[..., dict[str, CaseResult]], monkeypatch
) -> None:
    leave_lease(folder_of(suite, tmp_path, FIRST))

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(elsewhere, "hold", refuse)
    done = run(pattern="*s0", wait=True)
    assert done[FIRST].status == "failed"
    assert re.fullmatch(r"Cannot take .* over: Permission denied\.", str(done[FIRST].reason))
    assert done[CHILD].status == "held"


def test_a_driver_that_waits_can_be_stopped(
    suite: Path, tmp_path: Path, run: Callable[..., dict[str, CaseResult]]
) -> None:
    with living(leave_lease(folder_of(suite, tmp_path, FIRST))):
        words = ("run", suite, "--out", tmp_path, "--device", "cpu", "--wait", "--max-time", "2")
        said = command(*words, "--filter", FIRST, code=4).stdout
    assert f"  waiting for {FIRST}: running on other (process 4)" in said
    assert f"{FIRST}: interrupted: while waiting" in said


def test_a_case_that_failed_elsewhere_is_not_tried_twice(
    suite: Path, tmp_path: Path, run: Callable[..., dict[str, CaseResult]]
) -> None:
    run(pattern=FIRST)
    file = folder_of(suite, tmp_path, FIRST).record
    record = json.loads(file.read_text()) | {"status": "failed", "reason": "memory"}
    file.write_text(json.dumps(record))
    [planned] = [one for one in _planned(suite, tmp_path) if one.case.name == FIRST]
    file.write_text(json.dumps(record | {"finished": "2031-01-01T00:00:00+00:00"}))
    new = replace(planned.task, failed="")  # it had no record when this driver began
    assert elsewhere.decided(new, elsewhere.Options(retry_failed=True))[0] == "failed"
    options = elsewhere.Options(retry_failed=True)
    ending = elsewhere.decided(planned.task, options)
    assert ending is not None
    assert ending[0] == "failed"
    [planned] = [one for one in _planned(suite, tmp_path) if one.case.name == FIRST]
    assert elsewhere.decided(planned.task, options) is None


def _planned(suite: Path, out: Path) -> list:
    from bench.runner.run_suite import plan_suites

    options = elsewhere.Options(device="cpu")
    [one] = plan_suites([suite], [], None, out, options, need_data=True)
    return list(one.planned)


def test_two_drivers_share_the_work(suite: Path, tmp_path: Path) -> None:
    words = ("run", suite, "--out", tmp_path / "out", "--device", "cpu", "--wait")
    drivers = [Forked(*words, out=tmp_path / f"{name}.txt") for name in "ab"]
    assert [driver.wait() for driver in drivers] == [0, 0], drivers[0].text + drivers[1].text
    folders = [file.parent for file in (tmp_path / "out").rglob("record.json")]
    assert len(folders) == 4
    for folder in folders:
        log = (folder / "log.txt").read_text()
        assert log.count(" epoch {") == 1, log  # trained once


def test_a_driver_that_died_while_submitting_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    leave_lease(CaseFolder(tmp_path / ROOM / "submitting"))
    with submitting(tmp_path):
        holder = CaseFolder(tmp_path / ROOM / "submitting").holder()
    assert holder is not None
    assert holder.pid == os.getpid()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_disjoint_and_keep_parents(suite: Path, tmp_path: Path, count: int) -> None:
    planned = _planned(suite, tmp_path)
    shares = [Shard(number, count).of(planned) for number in range(1, count + 1)]
    names = [item.case.name for share in shares for item in share]
    assert sorted(names) == sorted(item.case.name for item in planned)
    for share in shares:
        own = {item.case.name for item in share}
        assert {item.case.parent.name for item in share if item.case.parent} <= own
    assert max(map(len, shares[:2])) <= 2 * (4 // (2 * min(count, 2)) + 1)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(bench.UserError, match="shard takes K/N with K from 1 to N, such as 2/8"):
        read_shard(text)


def test_a_share_on_the_command_line(suite: Path, tmp_path: Path) -> None:
    words = ("run", suite, "--out", tmp_path, "--device", "cpu", "--dry-run")
    assert "2 cases in" in command(*words, "--shard", "2/2").stdout
    assert read_shard(" 2/2 ") == Shard(2, 2)
    assert read_shard(None) is None
