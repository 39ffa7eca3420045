"""Eight hosts on one folder whose drivers and cases die at random: nothing is lost or run wrongly.

    python -m pytest -m slow tests/runner/test_chaos.py -s

Each host is a driver with a host name of its own, so that another one's processes are unknown to
it, as on another machine. For ten minutes ($BENCH_CHAOS_S), drivers and cases are killed, and cases
are stopped until they have lost their lease and then go on.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from bench.machine import lease
from bench.machine.process import has_ended, started
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder

SUITE = """
name: chaos
datasets: {shapes: {size: [16, 16], num_train: 32, num_val: 4}}
models:
  first: {arch: custom/enet}
  second: {arch: custom/enet, init_from: {model: first}}
recipe: {epochs: 12, batch_size: 4, precision: fp32, memory_format: contiguous, augment: [flip]}
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
"""
NUM_HOSTS, LEASE_S = 8, 6.0
NAMED = ("unshare", "--uts", "sh", "-c")
SECONDS = float(os.environ.get("BENCH_CHAOS_S", "600"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="needs root and unshare, to give each driver a host name",
    ),
]


@dataclass
class Host:
    """A driver with a host name of its own."""

    name: str
    process: subprocess.Popen
    stopped_until: float = 0.0


def command(suite: Path, out: Path) -> list[str]:
    words = ["run", str(suite), "--out", str(out), "--device", "cpu", "--wait", "--retry-failed"]
    return [sys.executable, "-m", "bench", *words, "--loader-workers", "0"]


def start(number: int, suite: Path, out: Path, log: Path) -> Host:
    name = f"host{number}"
    environment = os.environ | {
        "BENCH_LEASE_S": str(LEASE_S),
        "BENCH_CACHE": str(log.parent / f"cache-{name}"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [*NAMED, f'hostname {name}; exec "$@"', "sh", *command(suite, out)],
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
        )
    return Host(name, process)


def running_cases(out: Path) -> list[tuple[int, int | None]]:
    """List the processes that hold a case."""
    found = []
    for place in (out / "chaos").glob("*__*"):
        seen = lease.latest(CaseFolder(place).lease)
        if seen is not None and seen.owner is not None and not seen.is_released:
            pid, start = seen.owner.pid, seen.owner.start
            if not has_ended(pid, start):
                found.append((pid, start))
    return found


def disturb(
    rng: random.Random, hosts: list[Host], out: Path, stopped: dict[int, float]
) -> str | None:
    """Kill a driver or a case, or stop a case until it has lost its lease."""
    what = rng.choice(["driver", "case", "case", "silence"])
    if what == "driver":
        host = rng.choice(hosts)
        with suppress(ProcessLookupError):
            os.kill(host.process.pid, signal.SIGKILL)
        return what
    cases = [pid for pid, begun in running_cases(out) if started(pid) == begun]
    cases = [pid for pid in cases if pid not in stopped]
    if not cases:
        return None
    pid = rng.choice(cases)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL if what == "case" else signal.SIGSTOP)
        if what == "silence":
            stopped[pid] = time.monotonic() + 2.5 * LEASE_S
    return what


def go_on(stopped: dict[int, float], now: float) -> None:
    for pid, until in list(stopped.items()):
        if now > until:
            del stopped[pid]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def num_ok(out: Path) -> int:
    files = (out / "chaos").glob("*/record.json")
    return sum(json.loads(file.read_text())["status"] == "ok" for file in files)


def test_every_case_ends_as_in_a_quiet_run(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite, out, log = write_suite(SUITE), tmp_path / "out", tmp_path / "hosts.txt"
    rng, did = random.Random(0), Counter()
    end = time.monotonic() + SECONDS
    number = NUM_HOSTS
    hosts = [start(number, suite, out, log) for number in range(NUM_HOSTS)]
    stopped: dict[int, float] = {}
    seen_ok = 0
    while time.monotonic() < end and num_ok(out) < 40:
        time.sleep(rng.uniform(0.5, 4.0))
        go_on(stopped, time.monotonic())
        did[disturb(rng, hosts, out, stopped)] += 1
        now_ok = num_ok(out)
        assert now_ok >= seen_ok, "a record was lost"
        seen_ok = now_ok
        for place, host in enumerate(hosts):
            if host.process.poll() is not None and num_ok(out) < 40:
                assert host.process.returncode in (0, 1, 5, -9), log.read_text()[-3000:]
                hosts[place], number = start(number, suite, out, log), number + 1
    go_on(stopped, float("inf"))
    for host in hosts:
        host.process.wait(900)
    last = start(number, suite, out, log)
    assert last.process.wait(900) == 0, log.read_text()[-3000:]
    print(f"\n{dict(did)}; {number} drivers; {seen_ok} cases done while they died")
    compare(suite, out, tmp_path / "quiet")


def compare(suite: Path, out: Path, quiet: Path) -> None:
    """Run the suite in peace, and compare all scores, counts and weights."""
    assert subprocess.run([*command(suite, quiet), "--workers", "2"], cwd=ROOT).returncode == 0
    expected = sorted((quiet / "chaos").glob("*/record.json"))
    found = sorted((out / "chaos").glob("*/record.json"))
    assert [file.parent.name for file in found] == [file.parent.name for file in expected]
    assert len(found) == 40
    for one, other in zip(found, expected, strict=True):
        mine, theirs = (json.loads(file.read_text()) for file in (one, other))
        assert mine["status"] == theirs["status"] == "ok"
        assert mine["fingerprints"] == theirs["fingerprints"]
        assert mine["training"]["loss"] == theirs["training"]["loss"]
        for name in ("val.json",):
            scores = [
                json.loads((f.parent / "eval" / name).read_text())["scores"] for f in (one, other)
            ]
            assert scores[0] == scores[1]
        counts = [np.load(f.parent / "eval" / "val.npz")["per_image"] for f in (one, other)]
        assert np.array_equal(*counts)
        states = [read_weights(f.parent / "weights.safetensors") for f in (one, other)]
        assert all(states[0][key].equal(states[1][key]) for key in states[1])
        assert not list(one.parent.rglob("*.tmp"))
