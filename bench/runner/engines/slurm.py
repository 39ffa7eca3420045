"""The engine that submits cases to Slurm, one job array for each kind of resources.

On its node, a case is run by the local engine. What became of it is read from files: a driver may
leave, and another one collect.
"""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.runner.engines import slurm_commands
from bench.runner.engines.cluster import Cluster, Resources
from bench.runner.engines.placed import Placed, collect, job_in, known, outcome_if_over
from bench.runner.engines.slurm_commands import Job, NoAnswer
from bench.runner.engines.submission import (
    Submission,
    Work,
    new_submission,
    read_submissions,
    script_text,
    submitting,
    write_submission,
)
from bench.runner.plan import look_up
from bench.runner.task import Options, Outcome, Task

POLL_S = 5.0
LOOK_S = 0.2  # for a request to stop


def run(
    tasks: Iterable[Task],
    options: Options,
    announce: Callable[[Task], None],
    cluster: Cluster,
    *,
    wait: bool = False,
    timeout_s: float | None = None,
    gpus_per_case: int = 1,
) -> Generator[Outcome, None, None]:
    """Submit tasks that Slurm does not have yet, and collect those that have ended.

    Args:
        announce: called with each task that is seen running.
        wait: watch until all have ended; else those that have not are `submitted`.
        timeout_s: a case that runs for longer is killed and has failed.
        gpus_per_case: processes that train a case together, on the GPUs of its job.
    """
    tasks = list(tasks)
    folder = tasks[0].folder.parent
    if options.should_stop():
        yield Outcome(tasks[0].case, "interrupted", "before it was submitted")
        return
    with submitting(folder):
        for submission in read_submissions(folder):
            _find_job(submission)
        placed, ended = known(folder, tasks)
        before = {one.task.case.name: collect(one) for one in ended}
        settled, left = _settle(tasks, placed, options)
        works = [Work(task, options, timeout_s, gpus_per_case) for task in left]
        arrays = _arrays(folder, works, cluster)
        _submit(arrays, placed, cluster)
    yield from settled
    if wait:
        yield from _watch(list(placed.values()), options, announce)
    else:
        for name, one in placed.items():
            notes = [f"before: {before[name].reason}"] if name in before else []
            yield Outcome(one.task.case, "submitted", str(one.job), notes=tuple(notes))


def preview(tasks: Sequence[Task], options: Options, cluster: Cluster) -> str:
    """Show what `run` would submit; nothing is written or submitted."""
    folder, placed = tasks[0].folder.parent, dict[str, Placed]()
    with suppress(NoAnswer):
        placed, _ = known(folder, tasks)
    _, left = _settle(tasks, placed, options, record=False)
    parts = [f"{one.task.case.name}: {one.job}" for one in placed.values()]
    works = [Work(task, options, None) for task in left]
    for number, array in enumerate(_arrays(folder, works, cluster), 1):
        names = [work.task.case.name for work in array.works]
        parents = {work.task.case.parent.name for work in array.works if work.task.case.parent}
        after = sorted(parents & {task.case.name for task in tasks})
        parts.append(
            f"Array {number}: {', '.join(names)}"
            + (f"\nafter {', '.join(after)}" if after else "")
            + f"\n{script_text(array.submission, array.resources, cluster)}"
        )
    return "\n".join(parts)


def _settle(
    tasks: Sequence[Task], placed: dict[str, Placed], options: Options, *, record: bool = True
) -> tuple[list[Outcome], list[Task]]:
    """Return the outcomes of cases that need no job, and the cases that need one."""
    settled: dict[str, Outcome] = {}
    left = []
    for task in tasks:
        case, (state, reason) = task.case, look_up(task)
        parent = settled.get(case.parent.name) if case.parent is not None else None
        if case.name in placed:
            continue
        if state == "done":
            settled[case.name] = Outcome(case, "ok")
        elif state == "failed" and not options.retry_failed:
            settled[case.name] = Outcome(case, "failed", f"{reason} (--retry-failed runs it again)")
        elif parent is not None and parent.status in ("failed", "blocked"):
            settled[case.name] = _blocked(task, f"{parent.case.name} {parent.status}", record)
        else:
            left.append(task)
    return list(settled.values()), left


def _blocked(task: Task, reason: str, record: bool) -> Outcome:
    if not record:
        return Outcome(task.case, "blocked", reason)
    from bench.runner.run_case import record_blocked

    return record_blocked(task, reason)


@dataclass(frozen=True)
class Array:
    """A job array to submit."""

    submission: Submission
    works: Sequence[Work]
    resources: Resources


def _arrays(folder: Path, works: Sequence[Work], cluster: Cluster) -> list[Array]:
    """Divide work into arrays: by what it asks for, and children after their parents."""
    depths: dict[str, int] = {}
    groups: dict[tuple[int, str], list[Work]] = {}
    for work in works:
        case, parent = work.task.case, work.task.case.parent
        depths[case.name] = depth = 0 if parent is None else depths.get(parent.name, -1) + 1
        groups.setdefault((depth, repr(cluster.resources(case.name))), []).append(work)
    most = slurm_commands.max_array()
    arrays = []
    for _, group in sorted(groups.items(), key=lambda item: item[0][0]):
        resources = cluster.resources(group[0].task.case.name)
        for start in range(0, len(group), most):
            part = group[start : start + most]
            arrays.append(Array(new_submission(folder, part), part, resources))
    return arrays


def _submit(arrays: Sequence[Array], placed: dict[str, Placed], cluster: Cluster) -> None:
    """Submit arrays in order, and add their cases to those that Slurm has.

    Raises:
        UserError: if Slurm refuses one; those before it are submitted.
    """
    for array in arrays:
        parents = {work.task.case.parent.name for work in array.works if work.task.case.parent}
        # A child starts however its parent ended, and looks at its record itself.
        after = sorted(placed[name].job.id for name in parents if name in placed)
        script = script_text(array.submission, array.resources, cluster)
        write_submission(array.submission, array.works, script)
        try:
            job = slurm_commands.sbatch(array.submission.script, after)
        except UserError:  # should Slurm have it all the same, it fails before it begins
            array.submission.remove()
            raise
        submission = array.submission.with_job(job)
        for index, work in enumerate(array.works):
            new = Job(submission.job_of(index), "PENDING")
            placed[work.task.case.name] = Placed(work.task, submission, index, new)


def _watch(
    waiting: list[Placed], options: Options, announce: Callable[[Task], None]
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each case when its job has ended."""
    failed: set[str] = set()
    while waiting:
        jobs = None
        with suppress(NoAnswer):  # its controller restarts, for example
            jobs = slurm_commands.squeue({str(one.submission.job) for one in waiting})
        ended = {one.submission.path: one.submission.ended() for one in waiting}
        for one in list(waiting):
            if jobs is not None:
                one.job = job_in(jobs, one.submission, one.index)
            if one.job.state == "RUNNING" and not one.is_announced:
                one.is_announced = True
                announce(one.task)
            outcome = outcome_if_over(one, one.index in ended[one.submission.path])
            if outcome is None:
                continue
            waiting.remove(one)
            parent = one.task.case.parent
            if outcome.status == "held" and parent is not None and parent.name in failed:
                # When it looked at its parent, the parent's death was not recorded yet.
                outcome = _blocked(one.task, f"{parent.name} failed", record=True)
            if outcome.status in ("failed", "blocked"):
                failed.add(outcome.case.name)
            yield outcome
        if waiting and _must_leave(options):
            for one in waiting:
                yield Outcome(one.task.case, "held", f"{one.job} goes on; bench run collects it")
            return


def _must_leave(options: Options) -> bool:
    """Wait for the next look at Slurm; return whether the driver is asked to stop."""
    until = time.monotonic() + POLL_S
    while time.monotonic() < until:
        if options.should_stop():
            return True
        time.sleep(LOOK_S)
    return False


def _find_job(submission: Submission) -> None:
    """Find the job of a submission whose driver was killed before it wrote it down.

    If there is none, the folder goes: should Slurm get the job late, it fails before it begins.
    """
    if submission.job is None:
        job = slurm_commands.find_job(submission.name)
        if job is None:
            submission.remove()
        else:
            submission.with_job(job)
