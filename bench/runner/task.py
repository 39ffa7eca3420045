"""A case to run, how to score it, and its outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from bench.errors import UserError
from bench.lookup import unknown
from bench.machine.world import ALONE, World
from bench.suite.case import Case
from bench.suite.evaluation import Evaluation
from bench.suite.schema import Cache
from bench.suite.suite import Suite

State = Literal["done", "failed", "stale", "resume", "to do"]
Status = Literal["ok", "failed", "blocked", "held", "submitted", "interrupted", "stopped"]
Ending = tuple[Status, str | None]  # and the reason


@dataclass(frozen=True)
class Options:
    """Where and how to run; nothing here changes what a case is."""

    device: str = "auto"
    roots: Mapping[str, Path] = field(default_factory=dict)
    loader_workers: int | None = None
    cache: Cache | None = None
    retry_failed: bool = False
    should_stop: Callable[[], bool] = lambda: False
    num_sharing: int = 1  # cases that run on this machine at once
    world: World = ALONE  # the processes that train the case together

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UserError: with what is allowed.
        """
        if self.cache is not None and self.cache not in get_args(Cache):
            raise UserError(unknown("cache", str(self.cache), get_args(Cache)))
        if self.loader_workers is not None and self.loader_workers < 0:
            raise UserError(f"loader workers must be 0 or more, not {self.loader_workers}.")


@dataclass(frozen=True)
class Task:
    """A case, how to score it, and its folder.

    fingerprints: of the splits as they are now; a record of other data is stale.
    failed: when the attempt ended that --retry-failed repeats; "": none, None: any.
    """

    case: Case
    folder: Path
    evaluations: Mapping[str, Evaluation]
    select: str
    keep: Literal["weights", "all", "none"]
    cache: Cache = "auto"
    scoring_batch: int | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    failed: str | None = None

    @classmethod
    def of(
        cls, suite: Suite, case: Case, folder: Path, fingerprints: Mapping[str, str] | None = None
    ) -> "Task":
        """Return the task of a suite's case."""
        return cls(
            case=case,
            folder=folder,
            evaluations=suite.scored,
            select=suite.splits.select,
            keep=suite.keep,
            cache=suite.cache,
            scoring_batch=suite.scoring_batch,
            fingerprints=fingerprints or {},
        )


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task.

    submitted: a cluster has the case. interrupted: the case was asked to stop and continues in the
    next run. stopped: its results cannot be written. None of these has a record, and after the
    last two, no further case is started.
    """

    case: Case
    status: Status
    reason: str | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
