"""Which cases are done, which are left, and what they need; must not import torch."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.records.case_folder import CaseFolder
from bench.records.record import Record, read_evaluations, read_record
from bench.runner.task import State, Task
from bench.suite.case import Case
from bench.suite.evaluation import Evaluation
from bench.suite.expand import in_order
from bench.suite.suite import Suite

if TYPE_CHECKING:
    from bench.runner.validate import Checked

STATE_SIZE = 3  # weights and two moments
NUM_CHECKPOINTS = 3  # the one being written and the two before it


@dataclass(frozen=True)
class Planned:
    """A case with its task and its state."""

    task: Task
    state: State
    reason: str | None

    @property
    def case(self) -> Case:
        """The case."""
        return self.task.case

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.state == "done"


def plan(
    suite: Suite, cases: Iterable[Case], folder: Path, checked: "Mapping[str, Checked]"
) -> list[Planned]:
    """Look up the state of each case, in the order in which they can run.

    Args:
        folder: of the suite's cases.
        checked: what is known about each case, by its name.
    """
    planned = []
    for case in in_order(cases):
        fingerprints = checked[case.name].fingerprints
        task = Task.of(suite, case, folder / case.folder, fingerprints)
        record = read_record(task.folder)
        has_failed = record is not None and record.status == "failed"
        task = replace(task, failed=record.finished if record and has_failed else "")
        planned.append(Planned(task, *look_up(task, record)))
    return planned


def look_up(task: Task, record: Record | None = None) -> tuple[State, str | None]:
    """Return the state of a case, and the reason for it.

    Args:
        record: of the case, if it was read before.

    Raises:
        UserError: if its record cannot be read.
    """
    record = record or read_record(task.folder)
    unfinished: State = "resume" if CaseFolder(task.folder).has_checkpoint else "to do"
    if record is None or record.status == "blocked":
        return unfinished, None
    changed = [s for s, p in record.fingerprints.items() if task.fingerprints.get(s, p) != p]
    data = f"the data of {', '.join(sorted(changed))} has changed since"
    if record.status == "failed":
        return (unfinished, f"{data} it failed") if changed else ("failed", record.reason)
    if changed:
        return "stale", f"{data} training"
    missing = unscored(task.folder, task.evaluations)
    return "done", f"not yet scored: {', '.join(missing)} (bench evaluate)" if missing else None


def unscored(folder: Path, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """List the evaluations that a case has no scores for, or whose definition has changed."""
    found = {record.name: record.asked for record in read_evaluations(folder)}
    return [name for name, evaluation in evaluations.items() if found.get(name) != evaluation]


def disk_needed(
    suite: Suite,
    planned: Iterable[Planned],
    checked: "Mapping[str, Checked]",
    num_workers: int = 1,
) -> int:
    """Return an upper estimate of the bytes that the unfinished cases need."""
    planned = list(planned)
    models = [checked[p.case.name].facts.model_bytes for p in planned if not p.is_done]
    kept = {"none": 0, "weights": 1, "all": 1 + STATE_SIZE}[suite.keep]
    best = any(p.case.recipe.checkpoint == "best" for p in planned)
    size = STATE_SIZE + best  # the checkpoint holds the best weights too
    return kept * sum(models) + num_workers * size * NUM_CHECKPOINTS * max(models, default=0)


def check_disk(out: Path, needed: int) -> None:
    """Refuse to start if results cannot be written, or the disk would fill.

    Raises:
        UserError: with what is needed and what is free.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"Cannot write results to {out}: {error.strerror}.") from error
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"The disk of {out} has {free / 1e9:.1f} GB free; this run may need "
            f"{needed / 1e9:.1f} GB. Free some space, give another --out, or set keep: none."
        )
