"""From valid cases to finished ones: what is done, what is left, in which order."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.case import Case, in_order
from bench.engines import in_process
from bench.errors import UserError
from bench.record import (
    CaseFolder,
    Resolved,
    read_evaluations,
    read_record,
    results_folder,
    write_resolved,
)
from bench.runner import Options, Outcome, Task, record_blocked
from bench.suite import Suite
from bench.validate import Checked

State = Literal["done", "failed", "resume", "stale", "to do"]
CHECKPOINTS_PER_MODEL = 5  # weights, and two checkpoints of weights with two moments' worth


@dataclass(frozen=True)
class Planned:
    """A case, where it goes, and how far it is."""

    case: Case
    task: Task
    state: State
    reason: str | None


def plan(
    suite: Suite, cases: Iterable[Case], out: Path, checked: Mapping[str, Checked]
) -> list[Planned]:
    """Look up how far each case is."""
    planned = []
    for case in in_order(cases):
        folder = results_folder(out, suite) / case.folder
        task = Task(case, folder, suite.scored, suite.splits.select, suite.keep)
        planned.append(Planned(case, task, *_state(task, checked[case.id].fingerprints)))
    return planned


def _state(task: Task, fingerprints: Mapping[str, str]) -> tuple[State, str | None]:
    folder = CaseFolder(task.folder)
    try:
        record = read_record(task.folder)
    except UserError as error:
        return "stale", str(error)
    if record is None or record.status == "blocked":
        return ("resume" if folder.checkpoint.exists() else "to do"), None
    if record.status == "failed":
        return "failed", record.reason
    changed = [s for s, p in record.fingerprints.items() if fingerprints.get(s, p) != p]
    if changed:
        return "stale", f"the data of {', '.join(sorted(changed))} changed since"
    missing = set(task.evaluations) - {e.name for e in read_evaluations(task.folder)}
    if missing:
        return "done", f"not yet scored: {', '.join(sorted(missing))} (bench evaluate)"
    return "done", None


def run(
    suite: Suite,
    all_cases: Iterable[Case],
    planned: Iterable[Planned],
    out: Path,
    options: Options,
    retry_failed: bool = False,
    fail_fast: bool = False,
    announce: Callable[[Planned], None] = lambda planned: None,
) -> Iterator[Outcome]:
    """Run what is left, and yield an outcome for every case that was not finished before.

    Args:
        announce: told of each case before it starts.

    Raises:
        UserError: where the results folder cannot be written.
    """
    resolved = Resolved(suite=suite, cases=tuple(all_cases))
    write_resolved(results_folder(out, suite), resolved)
    bad: set[str] = set()
    for item in planned:
        if item.state == "done":
            continue
        if item.state == "failed" and not retry_failed:
            bad.add(item.case.id)
            yield Outcome(item.case, "failed", f"{item.reason} (earlier; --retry-failed)")
            continue
        if item.case.parent is not None and item.case.parent.id in bad:
            bad.add(item.case.id)
            yield record_blocked(item.task, f"{item.case.parent.name} did not finish")
            continue
        if item.state == "stale":
            _clear(item.task.folder)
        announce(item)
        for outcome in in_process.run([item.task], options):
            yield outcome
            if outcome.status != "ok":
                bad.add(item.case.id)
            if outcome.status == "interrupted" or (fail_fast and outcome.status == "failed"):
                return


def _clear(folder: Path) -> None:
    """Empty a stale case's folder but for its log and lock."""
    case = CaseFolder(folder)
    for file in (case.record, case.checkpoint, case.weights, case.history):
        file.unlink(missing_ok=True)
    for part in (folder / "eval", case.pictures):
        shutil.rmtree(part, ignore_errors=True)


def disk_needed(planned: Iterable[Planned], checked: Mapping[str, Checked]) -> int:
    """Estimate the bytes that the unfinished cases will need at most."""
    todo = [checked[p.case.id].facts.model_bytes for p in planned if p.state != "done"]
    return sum(todo) + max(todo, default=0) * CHECKPOINTS_PER_MODEL


def check_disk(out: Path, needed: int) -> None:
    """Refuse to start where the disk would fill.

    Raises:
        UserError: naming what is needed and what is free.
    """
    place = next(p for p in (out, *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"{out} has {free / 1e9:.1f} GB free and needs {needed / 1e9:.1f}; free some, give "
            "another --out, or set keep: none."
        )
