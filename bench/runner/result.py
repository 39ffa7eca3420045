"""The result of one case: the data of `bench.run` and of `bench run --json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.records.record import read_evaluations
from bench.runner.task import Outcome, Status, Task

# Of the keys in a line of JSON; increased if a key is renamed, removed or changes its meaning.
VERSION = 1


@dataclass(frozen=True)
class CaseResult:
    """The result of one case.

    suite: name of the suite.
    case: name of the case, DATASET__MODEL__RECIPE__sSEED.
    id: SHA-256 of the resolved case.
    status: ok, failed, blocked (the case that it starts from failed), held (it, or the
        case that it starts from, is running elsewhere), submitted (a cluster has it), interrupted
        or stopped (it has no record; the next run continues).
    skipped: whether it was already done before this run.
    reason: why the status is not ok.
    seconds: that this run spent on it.
    notes: what happened during the run that a reader should know.
    folder: of the case, with its record.
    scores: by evaluation and name; in 0..1 except `loss`, and None if undefined. None if the case
        is not ok.
    """

    suite: str
    case: str
    id: str
    status: Status
    skipped: bool
    reason: str | None
    seconds: float
    notes: tuple[str, ...]
    folder: str
    scores: Mapping[str, Mapping[str, float | None]] | None

    def as_json(self) -> dict[str, Any]:
        """Return the line that --json prints."""
        return {"version": VERSION, **asdict(self)}


def case_result(suite: str, outcome: Outcome, task: Task, skipped: bool = False) -> CaseResult:
    """Return an outcome with the scores that the case has on disk."""
    scores = None
    if outcome.status == "ok":
        scores = {e.name: e.scores for e in read_evaluations(task.folder)}
    return CaseResult(
        suite=suite,
        case=outcome.case.name,
        id=outcome.case.id,
        status=outcome.status,
        skipped=skipped,
        reason=outcome.reason,
        seconds=outcome.seconds,
        notes=outcome.notes,
        folder=str(task.folder),
        scores=scores,
    )
