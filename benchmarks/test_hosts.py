"""Measure what hosts on a shared folder do to it, and that many of them lose nothing.

    python -m pytest benchmarks/test_hosts.py -s

`test_many_hosts`: 200 simulated hosts (processes with host names of their own) share 5,000 cases
that only beat and write a record; a tenth of the hosts is killed. `test_operations`: the file
operations of a case, a heartbeat, a look at a case and `bench status`, counted, and from them
the table of docs/clusters.md, which this prints.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tabulate import tabulate

from bench.machine import lease
from bench.machine.files import write_text
from bench.records.case_folder import CaseFolder, Held
from bench.records.heartbeat import MOST_S
from bench.runner.elsewhere import LOOKS_PER_S
from bench.runner.status import read_status
from benchmarks.paired import show

FORK = multiprocessing.get_context("fork")
NUM_HOSTS, NUM_CASES, NUM_KILLED, LEASE_S = 200, 5000, 20, 5.0
EVENTS = ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.utime", "os.mkdir")
CASE = {"dataset_name": "shapes", "model_name": "m", "recipe_name": "r"}


def make_suite(folder: Path, num: int) -> list[CaseFolder]:
    """Write the suite of many cases, as far as hosts and `bench status` read it."""
    ids = [f"{i:08x}" for i in range(num)]
    cases = [CASE | {"seed": i} for i in range(num)]
    write_text(folder / "suite.json", json.dumps({"cases": cases, "ids": ids}))
    return [CaseFolder(folder / f"shapes__m__r__s{i}__{ids[i]}") for i in range(num)]


def be_host(name: str, folders: list[CaseFolder], log: Path) -> None:
    """Run cases until all have a record: take each, beat a few times, write its record."""
    socket.gethostname = lambda: name
    lease._machine = lambda: name
    rng = random.Random(name)
    watches: dict[Path, lease.Watch] = {}
    left = folders
    while left:
        left = [folder for folder in left if not folder.record.exists()]
        for folder in left:
            if folder.record.exists():
                continue
            try:
                take(folder, watches)
            except Held:
                continue
            with log.open("a") as stream:
                stream.write(f"{folder.path.name}\n")
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0, 0.2))
        time.sleep(rng.uniform(0.2, 1.0))
    os._exit(0)


def take(folder: CaseFolder, watches: dict[Path, lease.Watch]) -> None:
    """Run a case, of which silence of its host can be seen by looking again and again."""
    watch = watches.get(folder.path)
    if watch is not None and watch.is_free() and not lease.is_free(watch.seen):
        try:
            with lease.hold(folder.lease, watch):
                pass
        except lease.Taken:
            raise Held(None) from None
    try:
        with folder.hold() as held:
            if folder.record.exists():
                raise Held(None)
            for step in range(3):
                folder.beat(step=step)
                held.require()
            write_text(folder.record, '{"status": "ok"}')
    except Held:
        if watch is None and not folder.record.exists():
            watches[folder.path] = lease.Watch(folder.lease)
        raise


def test_many_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: BenchmarkFixture
) -> None:
    monkeypatch.setenv(lease.VARIABLE, str(LEASE_S))
    folders = make_suite(tmp_path / "many", NUM_CASES)
    hosts = [
        FORK.Process(target=be_host, args=(f"host{n}", folders, tmp_path / f"host{n}.txt"))
        for n in range(NUM_HOSTS)
    ]

    def run() -> None:
        for host in hosts:
            host.start()
        for host in random.Random(0).sample(hosts, NUM_KILLED):
            time.sleep(0.3)
            os.kill(host.pid, signal.SIGKILL)
        for host in hosts:
            host.join()

    benchmark.pedantic(run, rounds=1)
    done = [line for file in tmp_path.glob("host*.txt") for line in file.read_text().splitlines()]
    assert len(set(done)) == len(done), "a case was run twice"
    assert all(folder.record.exists() for folder in folders)
    assert NUM_CASES - NUM_KILLED <= len(done) <= NUM_CASES  # the killed could not say so
    start = time.perf_counter()
    status = read_status(tmp_path / "many")
    seconds = time.perf_counter() - start
    assert len(status.having("ok")) == NUM_CASES
    show(benchmark, cases=len(done), hosts=NUM_HOSTS, status_s=round(seconds, 2))
    assert seconds < 2


class Counted:
    """Counts file operations while it is active."""

    def __init__(self) -> None:
        self.num, self.is_active = 0, False
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[object, ...]) -> None:
        self.num += self.is_active and event in EVENTS

    def of(self, action: Callable[[], object]) -> int:
        """Return how many operations an action takes."""
        self.num, self.is_active = 0, True
        try:
            action()
        finally:
            self.is_active = False
        return self.num


def test_operations(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    counted = Counted()
    folders = make_suite(tmp_path / "few", 100)
    one = folders[0]

    def hold() -> None:
        with one.hold():
            pass

    case = counted.of(hold)
    with one.hold() as held:
        beat = counted.of(lambda: (one.beat(step=1), held.require()))
    look = counted.of(lambda: (one.record.exists(), lease.latest(one.lease)))
    for folder in folders:
        write_text(folder.record, '{"status": "ok"}')
    status = counted.of(lambda: read_status(tmp_path / "few")) / len(folders)
    figures = {"case": case, "beat": beat, "look": look, "status of a case": status}
    rows = [
        _row(cases, gpus, hours, figures)
        for cases, gpus, hours in ((1_000, 64, 1.0), (1_000, 64, 0.1), (10_000, 1_000, 1.0))
    ]
    benchmark.pedantic(lambda: None)
    assert (case, beat, look) == (22, 6, 2)  # as docs/clusters.md has them
    assert status < 1.1
    show(benchmark, **figures)
    headers = ["cases", "GPUs", "hours per case", "beats/s", "taking/s", "waiting/s", "status"]
    print(tabulate(rows, headers, tablefmt="github"))


def _row(cases: int, gpus: int, hours: float, of: dict[str, float]) -> list[str]:
    """Return the operations per second on the folder while all GPUs are busy.

    A driver that looks for its next case passes over those that were taken since its last one: as
    many as there are GPUs.
    """
    starts = gpus / (3600 * hours)
    beats = gpus * (of["beat"] / MOST_S + lease.BEATS / lease.LEASE_S)
    taking = starts * (of["case"] + gpus * of["look"])
    figures = [beats, taking, LOOKS_PER_S * of["look"], of["status of a case"] * cases]
    return [f"{cases:,}", f"{gpus:,}", f"{hours:g}", *(f"{figure:,.0f}" for figure in figures)]
