"""What runs in programs of its own: tests, the self-test, cases."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

import torch

import bench
from bench.cli.commands.selftest import selftest as checks
from benchmarks.gpu.rows import Row, Skipped
from benchmarks.gpu.settings import CASES, ROOT, Settings

OUTCOME = re.compile(r"^(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR)\b")
FOR_THE_END_S = 20.0  # of the cases' time: what a case takes to save and stop


def tests(given: Settings) -> Iterator[Row]:
    """Run the tests that need a GPU."""
    every = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [file for file in every if "mark.gpu" in file.read_text(encoding="utf-8")]
    if not files:
        raise Skipped("no test is marked gpu")
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", *map(str, files)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="")
            found = OUTCOME.match(line)
            if found:
                yield {"test": found[1], "outcome": found[2].lower()}
    if running.returncode not in (0, 1):  # 1: tests failed, which their rows say
        raise RuntimeError(f"pytest ended with exit code {running.returncode}")


def selftest(given: Settings) -> Iterator[Row]:
    """Run `bench selftest`."""
    for check in islice(checks(torch.device(given.device)), 2 if given.is_toy else None):
        outcome = "passed" if check.passed else "failed"
        yield {"check": check.name, "outcome": outcome, "detail": check.detail}


def cases(given: Settings) -> Iterator[Row]:
    """Run cases of camvid_all, one after the other, until the time is over."""
    if given.camvid is None:
        raise Skipped("no folder of CamVid was given (--camvid)")
    end = time.monotonic() + given.seconds - FOR_THE_END_S
    out = Path(given.out) / "cases"
    small = ("--limit", "12", "--set", "recipes.enet.epochs=1") if given.is_toy else ()
    for pattern in CASES[:1] if given.is_toy else CASES:
        left = end - time.monotonic()
        if left < (1 if given.is_toy else FOR_THE_END_S):
            return
        command = [
            *(sys.executable, "-m", "bench", "run", "suites/camvid_all.yaml"),
            *("--filter", pattern, "--root", f"camvid={given.camvid}", "--out", str(out)),
            *("--device", given.device, "--max-time", f"{left:.0f}", *small),
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        yield from _records(out, pattern)


def _records(out: Path, pattern: str) -> Iterator[Row]:
    """Return the rows of the finished cases whose names match a pattern."""
    frame = bench.load(out)
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        if not fnmatch(row["case"], pattern) or row["evaluation"] not in (None, "test"):
            continue
        yield {
            "case": row["case"],
            "status": row["status"],
            "epochs": row.get("epochs"),
            "epoch, s": row["epoch_s"],
            "images/s": row["images_per_s"],
            "MFU": row["mfu"],
            "mIoU on test": row["miou"],
        }
