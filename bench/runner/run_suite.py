"""Running suites: what `bench run` and `bench.run` share. It prints nothing."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.errors import UserError
from bench.machine.lease import lease_s
from bench.models.counts import Complexity, read_complexity
from bench.records.case_folder import CaseFolder, drop_checkpoints, results_folder
from bench.records.record import Resolved, read_record, write_resolved
from bench.runner.elsewhere import run_with_others
from bench.runner.engines.cluster import load_cluster
from bench.runner.engines.engine import Engine
from bench.runner.gpus_per_case import require_several
from bench.runner.placing import Placing
from bench.runner.plan import Planned, check_disk, disk_needed, look_up, plan
from bench.runner.shard import Shard
from bench.runner.task import Options, Outcome, Task
from bench.runner.validate import Checked, check, load_checked
from bench.suite.case import Case
from bench.suite.expand import matching
from bench.suite.load import SuiteSource
from bench.suite.suite import Suite


@dataclass(frozen=True)
class PlannedSuite:
    """A valid suite with all its cases, and the plan for those that were asked for.

    folder: of its cases.
    checked: what is known about each case, by its name.
    """

    resolved: Resolved
    folder: Path
    checked: Mapping[str, Checked]
    planned: Sequence[Planned]

    @property
    def suite(self) -> Suite:
        """The suite."""
        return self.resolved.suite

    @property
    def left(self) -> list[Planned]:
        """The cases that are not done."""
        return [item for item in self.planned if not item.is_done]


def plan_suites(
    sources: Sequence[SuiteSource],
    settings: Sequence[str],
    pattern: str | None,
    out: Path,
    options: Options,
    *,
    need_data: bool,
    shard: Shard | None = None,
) -> list[PlannedSuite]:
    """Read and check suites, and look up the state of their cases.

    Args:
        settings: "key=value" texts that override each suite.
        pattern: glob on case names; suites without a matching case are left out.
        need_data: whether data and weight files must exist.
        shard: the share of each suite's cases to keep; None: all.

    Raises:
        UserError: with every fault of the first suite that has any, or if two suites would share
            a folder.
    """
    lease_s()  # a mistake in it is told at once
    found = []
    for source in sources:
        file = load_checked(source, settings)
        cases = file.cases()
        chosen = matching(cases, pattern)
        folder = results_folder(out, file.suite, settings)
        known = partial(_facts_if_done, file.suite, folder)
        checked = check(file, chosen, options.roots, need_data, options.device, known)
        resolved = Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases))
        if not chosen:
            continue
        planned = plan(file.suite, chosen, folder, checked)
        if shard is not None:
            planned = shard.of(planned)
        found.append(PlannedSuite(resolved, folder, checked, planned))
    folders = [one.folder for one in found]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"Two of these suites have the name {folder.name}; run one at a time.")
    return found


def _facts_if_done(
    suite: Suite, folder: Path, case: Case, fingerprints: Mapping[str, str]
) -> Complexity | None:
    """Return what was counted of a case that is finished; None if it must be checked."""
    task = Task.of(suite, case, folder / case.folder, fingerprints)
    record = read_record(task.folder)
    if record is None or look_up(task, record)[0] != "done":
        return None
    return read_complexity(record.complexity)


def total_disk(suites: Sequence[PlannedSuite], placing: Placing) -> int:
    """Return an upper estimate of the bytes that all suites need."""
    return sum(
        disk_needed(one.suite, one.planned, one.checked, placing.num_workers) for one in suites
    )


def require_engines(suites: Sequence[PlannedSuite], options: Options, placing: Placing) -> None:
    """Check that the engines can run the suites on this machine.

    Raises:
        UserError: if one cannot do what is asked, or there are too few cores or GPUs.
    """
    for one in suites:
        if placing.gpus_per_case > 1:
            require_several([item.case for item in one.left], placing.gpus_per_case)
    if placing.cluster is not None:
        load_cluster(placing.cluster)
        return
    if placing.engine == "ray":
        from bench.runner.engines import on_ray

        on_ray.require(options)
    for one in suites:
        _is_in_process(placing, one.suite)
        if one.left and placing.num_workers * placing.gpus_per_case > 1:
            _engine(placing, one.suite, options)


def require_disk(suites: Sequence[PlannedSuite], out: Path, placing: Placing) -> None:
    """Check the free disk space.

    Raises:
        UserError: with what to do about it.
    """
    check_disk(out, total_disk(suites, placing))


def run_suite(
    one: PlannedSuite,
    options: Options,
    placing: Placing,
    *,
    fail_fast: bool = False,
    announce: Callable[[Task], None] = lambda task: None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[Outcome]:
    """Run the cases of a suite that are not done, and yield the outcome of each.

    Args:
        announce: called with each case before it starts.
        tell: called with each case that another driver runs and that is waited for.
    """
    options = replace(options, num_sharing=max(1, min(placing.num_workers, len(one.left))))
    engine = _engine(placing, one.suite, options) if one.left else None
    write_resolved(one.folder, one.resolved)
    yield from run_planned(
        one.planned,
        options,
        engine,
        fail_fast=fail_fast,
        announce=announce,
        tell=tell,
        wait=None if placing.cluster else placing.wait,
    )


def run_planned(
    planned: Sequence[Planned],
    options: Options,
    engine: Engine | None = None,
    *,
    fail_fast: bool = False,
    announce: Callable[[Task], None] = lambda task: None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    wait: bool | None = False,
) -> Iterator[Outcome]:
    """Run the cases that are not done, with an engine; None: one after another, in this process.

    Args:
        wait: also for the cases that other drivers run; None: the engine sees to them itself.
    """
    for item in planned:
        if item.is_done:  # its process may have been killed before it cleaned up
            drop_checkpoints(CaseFolder(item.task.folder), item.task.keep == "all")
    tasks = [item.task for item in planned if not item.is_done]
    if not tasks:
        return
    start = engine or _in_process()

    def run(some: Sequence[Task]) -> Generator[Outcome, None, None]:
        with closing(start(some, options, announce)) as outcomes:
            yield from outcomes

    if wait is None:
        whole = run(tasks)
    else:
        whole = run_with_others(tasks, run, options, wait=wait, tell=tell)
    with closing(whole) as outcomes:
        for outcome in outcomes:
            yield outcome
            if fail_fast and outcome.status == "failed":
                return


def submission_text(one: PlannedSuite, options: Options, placing: Placing) -> str:
    """Show what would be submitted to a cluster; nothing if all is done, or runs here."""
    if placing.cluster is None or not one.left:
        return ""
    from bench.runner.engines import slurm

    tasks = [item.task for item in one.left]
    return slurm.preview(tasks, options, load_cluster(placing.cluster))


def _engine(placing: Placing, suite: Suite, options: Options) -> Engine:
    if placing.cluster is not None:
        from bench.runner.engines import slurm
        from bench.runner.engines.slurm_commands import require_slurm

        require_slurm()
        cluster = load_cluster(placing.cluster)
        return partial(
            slurm.run,
            cluster=cluster,
            wait=placing.wait,
            timeout_s=placing.timeout_s,
            gpus_per_case=placing.gpus_per_case,
        )
    if _is_in_process(placing, suite):
        return _in_process()
    if placing.engine == "ray":
        from bench.runner.engines import on_ray

        return partial(
            on_ray.run,
            address=placing.ray_address,
            timeout_s=placing.timeout_s,
            gpus_per_case=placing.gpus_per_case,
        )
    from bench.machine.device import pick_device
    from bench.runner.engines import processes

    device = pick_device(options.device)
    slots = processes.divide(placing.num_workers, device, placing.gpus_per_case)
    return partial(processes.run, slots=slots, timeout_s=placing.timeout_s)


def _is_in_process(placing: Placing, suite: Suite) -> bool:
    """Whether a suite's cases run in this process.

    Raises:
        UserError: if more is asked than one process can do.
    """
    if (placing.engine or suite.engine) != "in-process":
        return False
    if placing.num_workers * placing.gpus_per_case > 1 or placing.timeout_s:
        raise UserError(
            f"{suite.name}: --workers, --gpus-per-case and --timeout need processes per case; "
            "give --engine process."
        )
    return True


def _in_process() -> Engine:
    from bench.runner.engines import in_process

    return in_process.run


def must_stop(outcomes: Sequence[Outcome], *, fail_fast: bool) -> bool:
    """Return whether no further suite may start after these outcomes."""
    statuses = {outcome.status for outcome in outcomes}
    return bool(statuses & {"interrupted", "stopped"}) or (fail_fast and "failed" in statuses)
