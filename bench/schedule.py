"""From valid cases to finished ones: what is done, what is left, in which order."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.case import Case, in_order
from bench.case_folder import CaseFolder, drop_checkpoints
from bench.engines import Engine, in_process
from bench.errors import UserError
from bench.runner import look_up
from bench.suite import Suite
from bench.task import Options, Outcome, State, Task
from bench.validate import Checked

STATE_SIZE = 3  # weights and two moments
NUM_CHECKPOINTS = 3  # the one being written, the last and the one before


@dataclass(frozen=True)
class Planned:
    """A case with its task, and how far it is."""

    task: Task
    state: State
    reason: str | None

    @property
    def case(self) -> Case:
        """The case."""
        return self.task.case


def plan(
    suite: Suite, cases: Iterable[Case], folder: Path, checked: Mapping[str, Checked]
) -> list[Planned]:
    """Look up how far each case is, in the order that they can run.

    Args:
        folder: where the suite's cases go.
    """
    planned = []
    for case in in_order(cases):
        task = Task(
            case=case,
            folder=folder / case.folder,
            evaluations=suite.scored,
            select=suite.splits.select,
            keep=suite.keep,
            cache=suite.cache,
            fingerprints=checked[case.id].fingerprints,
        )
        planned.append(Planned(task, *look_up(task)))
    return planned


def run(
    planned: Sequence[Planned],
    options: Options,
    engine: Engine = in_process.run,
    fail_fast: bool = False,
    announce: Callable[[Task], None] = lambda task: None,
) -> Iterator[Outcome]:
    """Run what is left, and yield an outcome for every case that was not done before.

    Args:
        announce: told of each case before it starts.
    """
    for item in planned:
        if item.state == "done":  # its process may have been killed before it cleaned up
            drop_checkpoints(CaseFolder(item.task.folder), item.task.keep == "all")
    left = [item.task for item in planned if item.state != "done"]
    with closing(engine(left, options, announce)) as outcomes:
        for outcome in outcomes:
            yield outcome
            if fail_fast and outcome.status == "failed":
                return


def disk_needed(
    suite: Suite,
    planned: Iterable[Planned],
    checked: Mapping[str, Checked],
    num_workers: int = 1,
) -> int:
    """Estimate the bytes that the unfinished cases will need at most."""
    planned = list(planned)
    models = [checked[p.case.id].facts.model_bytes for p in planned if p.state != "done"]
    kept = {"none": 0, "weights": 1, "all": 1 + STATE_SIZE}[suite.keep]
    best = any(p.case.recipe.checkpoint == "best" for p in planned)
    size = STATE_SIZE + best  # the best weights lie in the checkpoint too
    return kept * sum(models) + num_workers * size * NUM_CHECKPOINTS * max(models, default=0)


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
