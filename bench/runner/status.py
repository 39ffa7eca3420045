"""What became of a suite's cases so far, on all hosts, read from their folders alone.

It reads JSON without checking all of it: thousands of cases are read in about a second.
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from bench.errors import UserError
from bench.machine import lease
from bench.machine.files import read_json
from bench.records.case_folder import CaseFolder, results_folder
from bench.suite.case import DIGITS_OF_A_FOLDER, case_name
from bench.suite.catalog import is_suite
from bench.suite.load import load

State = Literal["ok", "failed", "blocked", "running", "interrupted", "waiting"]
SHOWN = ("epoch", "num_epochs", "step", "num_steps", "loss", "miou", "images_per_s", "left_s")


@dataclass(frozen=True)
class CaseStatus:
    """What is known of a case.

    reason: why it failed or is blocked.
    host, pid, device: where it runs.
    silent_s: since its host's last sign of life, by the clock of the file system.
    progress: of a running case: epoch, step, loss and so on, as its heartbeat has them.
    seconds: that a finished case took.
    """

    name: str
    folder: Path
    state: State
    reason: str | None = None
    host: str | None = None
    pid: int | None = None
    device: str | None = None
    silent_s: float | None = None
    progress: Mapping[str, Any] | None = None
    seconds: float | None = None

    @property
    def may_be_dead(self) -> bool:
        """Whether its host was silent for so long that another may take the case over."""
        return self.silent_s is not None and self.silent_s > lease.lease_s()


@dataclass(frozen=True)
class SuiteStatus:
    """What became of a suite so far."""

    name: str
    folder: Path
    cases: Sequence[CaseStatus]

    def having(self, state: State) -> list[CaseStatus]:
        """Return the cases in a state."""
        return [case for case in self.cases if case.state == state]

    @property
    def is_over(self) -> bool:
        """Whether no case is left to run."""
        return not any(case.state in ("running", "interrupted", "waiting") for case in self.cases)

    @property
    def left_s(self) -> float | None:
        """Estimate the time until all have ended, with as many at once as now; None if unknown."""
        running = self.having("running")
        lefts = [(case.progress or {}).get("left_s") for case in running]
        known = [left for left in lefts if left is not None]
        took = [case.seconds for case in self.cases if case.seconds]
        if not running or not (known or took):
            return None
        typical = statistics.median(took) if took else statistics.mean(known)
        still = [typical if left is None else left for left in lefts]
        after = len(self.having("waiting")) + len(self.having("interrupted"))
        return (sum(still) + after * typical) / len(running)


def find_folders(targets: Sequence[str], out: Path, settings: Sequence[str] = ()) -> list[Path]:
    """Return the folders of suites: of suites by name or file, and those in other folders.

    Args:
        settings: with which the suites were run.

    Raises:
        UserError: if a target is neither, or nothing has run yet.
    """
    lease.lease_s()  # a mistake in it is told at once
    found: list[Path] = []
    for target in targets or [str(out)]:
        if is_suite(target):
            folder = results_folder(out, load(target, settings).suite, settings)
            if not (folder / "suite.json").is_file():
                raise UserError(
                    f"Nothing of {target} has run here: there is no {folder.absolute()}. If its "
                    "results are elsewhere, give their folder, or --results."
                )
            found.append(folder)
            continue
        named = out / target  # the name of a suite that has run
        place = named if (named / "suite.json").is_file() else Path(target)
        here = [place] if (place / "suite.json").is_file() else []
        here += sorted(file.parent for file in place.glob("*/suite.json"))
        if not here:
            raise UserError(
                f"{target} is neither a suite nor a folder of results (--results); bench run makes "
                "one."
            )
        found += here
    return list(dict.fromkeys(found))


def read_status(folder: Path) -> SuiteStatus:
    """Read the state of every case of a suite.

    Raises:
        UserError: if its suite.json cannot be read.
    """
    saved = read_json(folder / "suite.json")
    try:
        keys = ("dataset_name", "model_name", "recipe_name", "seed")
        names = [case_name(tuple(case[key] for key in keys)) for case in saved["cases"]]
        ids = saved["ids"]
        places = [f"{n}__{i[:DIGITS_OF_A_FOLDER]}" for n, i in zip(names, ids, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'suite.json'} is not a saved suite; run it again.") from error
    try:
        begun = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"Cannot read {folder}: {error.strerror}.") from error
    now = _now(folder)
    cases = [
        _status(name, folder / place, now)
        if place in begun
        else CaseStatus(name, folder / place, "waiting")
        for name, place in zip(names, places, strict=True)
    ]
    return SuiteStatus(folder.name, folder, cases)


def _now(folder: Path) -> float:
    """Return the time by the clock of the file system, which all hosts share."""
    with suppress(OSError), TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
    return datetime.now().timestamp()


def _status(name: str, place: Path, now: float) -> CaseStatus:
    folder = CaseFolder(place)
    record = read_json(folder.record)
    if isinstance(record, dict) and record.get("status") == "ok":
        return CaseStatus(name, place, "ok", seconds=_seconds(record))
    seen = None
    with suppress(OSError):
        seen = lease.latest(folder.lease)
    if seen is None or lease.is_free(seen):
        if isinstance(record, dict):
            state: State = record.get("status", "failed")
            return CaseStatus(name, place, state, record.get("reason"))
        return CaseStatus(name, place, "interrupted" if folder.has_checkpoint else "waiting")
    beat = read_json(folder.alive)
    beat = beat if isinstance(beat, dict) else {}
    heard = seen.touched / 1e9
    with suppress(OSError):
        heard = max(heard, folder.alive.stat().st_mtime)
    return CaseStatus(
        name=name,
        folder=place,
        state="running",
        host=seen.owner.host if seen.owner else beat.get("host"),
        pid=seen.owner.pid if seen.owner else beat.get("pid"),
        device=beat.get("device"),
        silent_s=max(0.0, now - heard),
        progress={key: beat[key] for key in SHOWN if beat.get(key) is not None},
    )


def _seconds(record: Mapping[str, Any]) -> float | None:
    """Return how long a case took, from its first start to its record."""
    try:
        start, end = (datetime.fromisoformat(record[key]) for key in ("started", "finished"))
        return max(0.0, (end - start).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None
