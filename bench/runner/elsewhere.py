"""Cases that other drivers run: what became of them, and whether they can be taken over.

Must not import torch.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence

from bench.errors import UserError
from bench.machine.lease import Taken, Watch, hold, is_free
from bench.records.case_folder import CaseFolder, Held
from bench.records.record import read_record
from bench.runner.plan import look_up
from bench.runner.task import Ending, Options, Outcome, Task

ELSEWHERE = ("another driver ran it",)  # of an outcome
POLL_S, STOP_S = 5.0, 0.2
LOOKS_PER_S = 2.0  # at most, of a driver that waits
Run = Callable[[Sequence[Task]], Iterator[Outcome]]


def decided(task: Task, options: Options) -> Ending | None:
    """Return what a case's record says of it; None if it has to run."""
    record = read_record(task.folder)
    state, reason = look_up(task, record)
    if state == "done":
        return "ok", None
    # Another driver may have tried it again since this one read its record.
    retried = options.retry_failed and task.failed in (None, record and record.finished)
    if state == "failed" and not retried:
        return "failed", f"{reason} (in an earlier run; --retry-failed runs it again)"
    return None


def unfinished_parent(task: Task) -> str | None:
    """Return the name of the case that this one starts from, if it has no record yet."""
    parent = task.case.parent
    if parent is None or read_record(task.folder.parent / parent.folder) is not None:
        return None
    return parent.name


def known(task: Task, options: Options) -> Outcome | None:
    """Return the outcome of a case that another driver runs or has run; None if it is to run."""
    ending = decided(task, options)
    if ending is not None:
        return Outcome(task.case, *ending, notes=ELSEWHERE)
    holder = CaseFolder(task.folder).holder()
    if holder is not None:
        return Outcome(task.case, "held", str(Held(holder)))
    parent = unfinished_parent(task)
    return None if parent is None else Outcome(task.case, "held", f"{parent} has not finished")


def run_with_others(
    tasks: Sequence[Task],
    run: Run,
    options: Options,
    *,
    wait: bool,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Generator[Outcome, None, None]:
    """Run tasks, and after them those that other drivers held and then left.

    Args:
        run: runs tasks and yields their outcomes.
        wait: wait until every case has ended. Otherwise, wait only until it is known of each
            case that is running elsewhere that its host still lives.
        tell: called with each case that is waited for.
    """
    waiting: dict[str, Outcome] = {}
    in_vain: set[str] = set()  # they ended here without a record, such as a refused resume
    by_name = {task.case.name: task for task in tasks}
    watches: dict[str, Watch] = {}
    ready: Sequence[Task] = tasks
    while True:
        for outcome in run(ready):
            if outcome.status == "held":
                name = outcome.case.name
                waiting[name] = outcome
                tell(outcome)
                watches.setdefault(name, Watch(CaseFolder(by_name[name].folder).lease))
            else:
                if read_record(by_name[outcome.case.name].folder) is None:
                    in_vain.add(outcome.case.name)
                yield outcome
                if outcome.status in ("interrupted", "stopped"):
                    return
        ready = list[Task]()
        while waiting and not ready:
            for name in list(waiting):
                ending = decided(by_name[name], options)
                if ending is not None:
                    yield Outcome(waiting.pop(name).case, *ending, notes=ELSEWHERE)
                elif unfinished_parent(by_name[name]) in in_vain:
                    in_vain.add(name)
                    yield waiting.pop(name)
            for name in [name for name in by_name if name in waiting]:
                try:
                    if _can_run(by_name[name], watches[name]):
                        ready.append(by_name[name])
                        del waiting[name]
                except UserError as error:  # its lease cannot be taken
                    in_vain.add(name)
                    yield Outcome(waiting.pop(name).case, "failed", str(error))
            if ready or not waiting:
                break
            if options.should_stop():
                yield Outcome(next(iter(waiting.values())).case, "interrupted", "while waiting")
                return
            if not wait and all(_lives(by_name[n], watches[n]) for n in waiting):
                yield from waiting.values()
                return
            _pause(max(POLL_S, len(waiting) / LOOKS_PER_S if wait else 0.0), options)
        if not ready:
            return


def _pause(seconds: float, options: Options) -> None:
    """Sleep, but not through a request to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not options.should_stop():
        time.sleep(min(STOP_S, seconds))


def freed(watch: Watch) -> bool:
    """Return whether a case's lease is free; frees that of a host that was silent for long.

    Raises:
        UserError: if it cannot be written, for example because the folder is another user's.
    """
    if not watch.is_free():
        return False
    if not is_free(watch.seen):  # only who has watched it for long enough can take it
        try:
            with hold(watch.place, watch):
                pass
        except Taken:
            return False
        except OSError as error:
            folder = watch.place.parent
            raise UserError(f"Cannot take {folder} over: {error.strerror}.") from error
    return True


def _can_run(task: Task, watch: Watch) -> bool:
    return unfinished_parent(task) is None and freed(watch)


def _lives(task: Task, watch: Watch) -> bool:
    """Return whether the host that runs a case, or its parent, gave a sign of life."""
    if unfinished_parent(task) is not None:  # which is waited for, too
        return True
    return watch.lives
