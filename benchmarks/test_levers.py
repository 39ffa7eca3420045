"""Measure what precision, memory format and start-up save, on the CPU.

    python -m pytest benchmarks/test_levers.py -s

`test_fast_against_plain`: training steps of four networks as `auto` runs them (bf16 and
channels_last) against fp32 and contiguous, on a CPU that computes in bf16.
`test_from_the_second_case_on`: the time between two cases that run in their own processes.
`test_what_is_known_starts_at_once`: commands on suites that were checked or finished before, and a
plan of 10,000 cases.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.machine.device import cpu_computes_bf16
from bench.machine.numerics import Numerics
from bench.suite.model import ModelSpec
from benchmarks.paired import in_turn, median, ratio, show
from benchmarks.steps import built, noise, training

CPU = torch.device("cpu")
BATCH = 8
NETWORKS = {  # (H, W), and by how much the fast way must be faster
    "fcn": ({"arch": "custom/fcn"}, (192, 256), 2.0),
    "unet-r18": ({"arch": "smp/unet", "encoder": "resnet18"}, (192, 256), 2.0),
    "enet": ({"arch": "custom/enet"}, (176, 240), 1.4),
    "unet-lite0": ({"arch": "smp/unet", "encoder": "tu-efficientnet_lite0"}, (192, 256), 1.5),
}
SUITE = """
name: starts
datasets: {shapes: {size: [32, 32], num_train: 16, num_val: 4}}
models: {fcn: {arch: custom/enet}}
recipe: {epochs: 1, batch_size: 4}
seeds: [0, 1, 2, 3, 4, 5]
"""
MANY = """
name: many
datasets: {shapes: {size: [32, 32], num_train: 16, num_val: 4}}
models: {enet: {arch: custom/enet}, fcn: {arch: custom/fcn}}
recipe: {epochs: 1, batch_size: 4}
"""


def steps(asked: dict, size: tuple[int, int], fast: bool) -> Callable[[], None]:
    """Return a function that trains two steps as a case does."""
    numerics = Numerics("cpu", micro_batch=BATCH)
    if fast:
        numerics = Numerics("cpu", "bf16", micro_batch=BATCH, memory_format="channels_last")
    spec, batch = ModelSpec.model_validate(asked), noise(BATCH, size, CPU)
    run = training(built(spec, numerics, CPU), numerics, batch, CPU, spec.arch)
    return partial(run, [batch] * 2, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_fast_against_plain(name: str, benchmark: BenchmarkFixture) -> None:
    if not cpu_computes_bf16():
        pytest.skip("this CPU does not compute in bf16")
    spec, size, limit = NETWORKS[name]
    arms = {"plain": steps(spec, size, fast=False), "fast": steps(spec, size, fast=True)}
    seconds = in_turn(benchmark, arms, rounds=7)
    found = ratio(seconds["plain"], seconds["fast"])
    show(benchmark, ratio=found)
    assert found.value >= limit


def bench(*words: object, folder: Path) -> float:
    """Run a command in a new process and return the seconds that it took."""
    environment = os.environ | {"BENCH_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    command = [sys.executable, "-m", "bench", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - start


def test_from_the_second_case_on(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    """The end of a case and the first line of the next one's log, as far as they are recorded."""
    (tmp_path / "s.yaml").write_text(SUITE)
    words = ("run", "s.yaml", "--device", "cpu", "--json")
    in_turn(benchmark, {"run": lambda: bench(*words, folder=tmp_path)}, rounds=1)
    ends = sorted(
        (file.stat().st_mtime, (file.parent / "case.json").stat().st_mtime)
        for file in tmp_path.glob("results/starts/*/record.json")
    )
    between = [begun - ended for (ended, _), (_, begun) in pairwise(ends)]
    found = median(between)
    show(benchmark, seconds=found)
    assert found.value <= 0.5


def test_what_is_known_starts_at_once(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    many = {f"m{i}": {"arch": ("custom/enet", "custom/fcn")[i % 2]} for i in range(100)}
    (tmp_path / "many.yaml").write_text(
        MANY.partition("models")[0]
        + f"models: {json.dumps(many)}\n"
        + "recipe: {epochs: 1, batch_size: 4}\nseeds: "
        + json.dumps(list(range(100)))
    )
    bench("run", "s.yaml", "--device", "cpu", folder=tmp_path)
    commands = {
        "finished": ("run", "s.yaml"),
        "dry run": ("run", "s.yaml", "--dry-run"),
        "validate": ("validate", "s.yaml"),
        "10,000 cases": ("run", "many.yaml", "--dry-run"),
    }
    arms = {
        name: (lambda words=words: bench(*words, folder=tmp_path))
        for name, words in commands.items()
    }
    seconds = in_turn(benchmark, arms, rounds=3)
    found = {name: median(times) for name, times in seconds.items()}
    show(benchmark, **found)
    for name, limit in (("finished", 2), ("dry run", 2), ("validate", 2), ("10,000 cases", 5)):
        assert found[name].value <= limit, name
