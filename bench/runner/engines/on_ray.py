"""The engine on a Ray cluster: Ray chooses a node for each case; the local engine runs it there.

Records on a shared file system are all that comes back, besides the outcome. A case whose worker
or node is lost is given to Ray again and goes on from its checkpoint.
"""

import importlib.util
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError
from bench.records.case_folder import CaseFolder
from bench.records.record import Failure, now
from bench.runner.engines.engine import next_ready
from bench.runner.engines.ray_cluster import Cluster, Placed, connected
from bench.runner.engines.ray_node import await_former
from bench.runner.task import Options, Outcome, Task

MOST_LOSSES = 3  # of a case's worker, without an epoch in between


def require(options: Options) -> None:
    """Check what can be checked before the cluster is asked.

    Raises:
        UserError: if Ray is not installed, or another device is asked for than it can give.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs the package ray: pip install 'bench[ray]'.")
    if options.device not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"With --engine ray, the device is auto, cpu or cuda, not {options.device}; Ray itself "
            "chooses a GPU."
        )


def run(
    tasks: Iterable[Task],
    options: Options,
    announce: Callable[[Task], None],
    *,
    address: str | None = None,
    timeout_s: float | None = None,
    gpus_per_case: int = 1,
) -> Generator[Outcome, None, None]:
    """Run each task where Ray finds room for it, as many at once as the cluster has room for.

    Args:
        address: of the cluster; None: the one that RAY_ADDRESS or this machine knows, or else one
            that is started here for this run.
        timeout_s: a case that runs for longer is killed and has failed.
        gpus_per_case: processes that train a case together, on the GPUs of one node.

    Raises:
        UserError: if the cluster cannot be reached, or cannot run the cases.
    """
    waiting = list(tasks)
    with connected(address) as ray, _marked(waiting) as markers:
        cluster = Cluster(ray, options, timeout_s, gpus_per_case, markers)
        try:
            yield from _run(waiting, options, announce, cluster)
        except GeneratorExit:  # the caller wants no more outcomes: cases may save and stop
            cluster.cancel()
            cluster.wait()
            raise
        except BaseException:  # a second Ctrl-C waits for nobody
            cluster.cancel(force=True)
            raise


def _run(
    waiting: list[Task], options: Options, announce: Callable[[Task], None], cluster: Cluster
) -> Generator[Outcome, None, None]:
    stopping = interrupted = False
    while cluster.placed or (waiting and not stopping):
        stopping = stopping or interrupted or options.should_stop()
        if stopping:
            cluster.cancel()
        while not stopping and cluster.has_room:
            task = next_ready(waiting, (case.task for case in cluster.placed))
            if task is None:
                break
            waiting.remove(task)
            cluster.place(Placed(task, None))
        for case in cluster.placed:
            if not case.is_announced and CaseFolder(case.task.folder).alive.exists():
                case.is_announced = True
                announce(case.task)
        for case in cluster.ended():
            outcome = cluster.outcome(case)
            if outcome is None:  # it was cancelled while it waited for a node
                waiting.insert(0, case.task)
                continue
            if outcome.status == "interrupted" and not stopping and not interrupted:
                outcome = _after_loss(case, outcome, cluster)
                if outcome is None:
                    continue
            interrupted = interrupted or outcome.status in ("interrupted", "stopped")
            if not case.is_announced:
                announce(case.task)
            yield outcome
    if waiting and not interrupted:
        yield Outcome(waiting[0].case, "interrupted", "before it started")


def _after_loss(case: Placed, outcome: Outcome, cluster: Cluster) -> Outcome | None:
    """Give a case to Ray again, or after too many losses in vain, record that it failed."""
    size = _history_bytes(case.task)
    case.losses = 1 if size > case.history else case.losses + 1
    case.history, case.was_lost = size, True
    if case.losses > MOST_LOSSES:
        return _give_up(case.task, f"lost {case.losses} times within one epoch; {outcome.reason}")
    cluster.place(case)
    return None


def _history_bytes(task: Task) -> int:
    """Return a number that grows with each epoch that is saved."""
    try:
        return CaseFolder(task.folder).history.stat().st_size
    except OSError:
        return 0


def _give_up(task: Task, reason: str) -> Outcome:
    """Record that a case failed because its workers were lost."""
    from bench.runner.run_case import record_death

    started = now()
    await_former(task)
    failure = Failure(log_tail=CaseFolder(task.folder).log_tail())
    return record_death(task, started, reason, failure)


@contextmanager
def _marked(tasks: Iterable[Task]) -> Iterator[Mapping[Path, Path]]:
    """Put a file in each folder of results, by which nodes see that they share it."""
    folders = {task.folder.absolute().parent for task in tasks}
    markers = {folder: folder / f".shared-{secrets.token_hex(8)}" for folder in folders}
    try:
        for folder, marker in markers.items():
            folder.mkdir(parents=True, exist_ok=True)
            marker.touch()
        yield markers
    finally:
        for marker in markers.values():
            marker.unlink(missing_ok=True)
