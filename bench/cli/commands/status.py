"""The command `status`."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from tabulate import tabulate

from bench.cli.console import Console
from bench.runner.status import CaseStatus, State, SuiteStatus, find_folders, read_status
from bench.text import duration, listed, percent, plural

EVERY_S = 5.0
HEADERS = ["running", "host", "device", "epoch", "loss", "mIoU", "speed", "left", "silent"]
MOST_FAILED = 20
VERSION = 1


def show_status(
    targets: Sequence[str],
    out: Path,
    settings: Sequence[str],
    console: Console,
    *,
    watch: bool,
) -> None:
    """Print what became of suites so far; if watched, again and again until all is over."""
    while True:
        found = [read_status(folder) for folder in find_folders(targets, out, settings)]
        if watch and console.is_terminal:
            console.rich.clear()
        for suite in found:
            _show(suite, console)
        if not watch or all(suite.is_over for suite in found):
            return
        time.sleep(EVERY_S)


def _show(suite: SuiteStatus, console: Console) -> None:
    if console.json_lines:
        for case in suite.cases:
            console.json(_line(suite, case))
        return
    states = [case.state for case in suite.cases]
    parts = [f"{states.count(state)} {state}" for state in get_args(State) if state in states]
    left = suite.left_s
    rest = "" if left is None else f"; about {duration(left)} left"
    total = plural(len(suite.cases), "case")
    console.say(f"{suite.name}: {total}: {', '.join(parts)}{rest}")
    running = suite.having("running")
    if running:
        console.say(tabulate(map(_row, running), HEADERS, disable_numparse=True))
    dead = [case.name for case in running if case.may_be_dead]
    if dead:
        console.say(f"Silent for long: {listed(dead)}. bench run --wait takes them over.")
    failed = suite.having("failed")
    for case in failed[:MOST_FAILED]:
        console.say(f"  {case.name}: failed: {case.reason}")
    if len(failed) > MOST_FAILED:
        console.say(f"  and {len(failed) - MOST_FAILED} more failed")


def _row(case: CaseStatus) -> list[str]:
    at = case.progress or {}
    epochs = at.get("num_epochs")
    return [
        case.name,
        f"{case.host} ({case.pid})",
        case.device or "",
        f"{min(at.get('epoch', 1), epochs)}/{epochs}" if epochs else "",
        f"{at['loss']:.4f}" if "loss" in at else "",
        percent(at["miou"]) if "miou" in at else "",
        f"{at['images_per_s']:.1f} img/s" if "images_per_s" in at else "",
        duration(at["left_s"]) if "left_s" in at else "",
        duration(case.silent_s or 0.0),
    ]


def _line(suite: SuiteStatus, case: CaseStatus) -> dict[str, object]:
    known = asdict(case) | {"folder": str(case.folder)}
    return {"version": VERSION, "suite": suite.name, "case": known.pop("name"), **known}
