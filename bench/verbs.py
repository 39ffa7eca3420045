"""What `run`, `evaluate` and `validate` do."""

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from bench import schedule
from bench.case import Case, expand, matching
from bench.case_folder import CaseFolder, results_folder
from bench.data import open_dataset
from bench.device import pick_device
from bench.engines import Engine, in_process, processes
from bench.errors import Exit, Faults, UserError
from bench.progress import watching
from bench.record import Resolved, read_record, read_resolved, write_resolved
from bench.runner import evaluate_case
from bench.schema import Cache
from bench.screen import Screen
from bench.suite import Suite
from bench.suite_file import SuiteFile
from bench.task import Options, Outcome, Task
from bench.validate import Checked, check, check_deep, load_checked


@dataclass(frozen=True)
class Where:
    """What flags say of where and how, for every command that runs something."""

    device: str
    roots: Mapping[str, Path]
    out: Path
    loader_workers: int | None
    cache: Cache | None
    json_lines: bool


@dataclass(frozen=True)
class How:
    """What flags say of the engine.

    engine: of every suite; None: as each suite says.
    num_workers: cases at once.
    timeout_s: of a case.
    """

    engine: Literal["process", "in-process"] | None = None
    num_workers: int = 1
    timeout_s: float | None = None

    def engine_of(self, suite: Suite) -> str:
        """Return the engine that runs a suite."""
        return self.engine or suite.engine

    def require_fit(self, suite: Suite) -> None:
        """Refuse what an engine cannot do.

        Raises:
            UserError: where one process is to do the work of several.
        """
        if self.engine_of(suite) == "in-process" and (self.num_workers > 1 or self.timeout_s):
            raise UserError(
                f"{suite.name}: --workers and --timeout need a process for each case; give "
                "--engine process."
            )


@dataclass(frozen=True)
class Loaded:
    """A valid suite with all its cases, and those of them that were asked for, looked up."""

    resolved: Resolved
    folder: Path
    checked: dict[str, Checked]
    planned: list[schedule.Planned]


def run_suites(
    paths: Sequence[Path],
    pattern: str | None,
    settings: Sequence[str],
    where: Where,
    *,
    dry_run: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    max_time_s: float | None = None,
    how: How = How(),
) -> Exit:
    """Check every suite, then run what is left of them."""
    screen = Screen(where.json_lines)
    slots = processes.divide(how.num_workers, pick_device(where.device))
    loaded = [_load(path, settings, pattern, where, need_data=not dry_run) for path in paths]
    if len({one.folder for one in loaded}) < len(loaded):
        raise UserError("Two of these suites have one name, and would share a folder.")
    loaded = [one for one in loaded if one.planned]
    if not loaded:
        return _nothing_matched(screen, pattern)
    for one in loaded:
        how.require_fit(one.resolved.suite)
    needed = sum(
        schedule.disk_needed(x.resolved.suite, x.planned, x.checked, how.num_workers)
        for x in loaded
    )
    if dry_run:
        for one in loaded:
            screen.plan(one.resolved.suite, one.folder, one.planned, one.checked)
            chosen = [item.case for item in one.planned]
            for line in _missing(one.resolved.suite, chosen, where.roots):
                screen.say(f"Not there yet: {line}.")
        screen.say(f"At most {needed / 1e9:.2f} GB of disk.")
        return Exit.OK
    schedule.check_disk(where.out, needed)
    deadline = None if max_time_s is None else time.monotonic() + max_time_s
    outcomes: list[Outcome] = []
    with _stopping(screen, deadline) as stop:
        options = Options(
            where.device,
            where.roots,
            where.loader_workers,
            where.cache,
            retry_failed,
            stop.is_due,
        )
        for one in loaded:
            outcomes += (new := _run(one, options, how, slots, fail_fast, screen))
            statuses = {outcome.status for outcome in new}
            if statuses & {"interrupted", "stopped"} or (fail_fast and "failed" in statuses):
                break
    code = _exit(outcomes)
    return Exit.TERMINATED if stop.terminated and code == Exit.INTERRUPTED else code


def _load(
    path: Path, settings: Sequence[str], pattern: str | None, where: Where, *, need_data: bool
) -> Loaded:
    file = load_checked(path, settings)
    cases = _expand(file)
    chosen = matching(cases, pattern)
    checked = check(file, chosen, where.roots, need_data=need_data, device_name=where.device)
    folder = results_folder(where.out, file.suite, settings)
    return Loaded(
        resolved=Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases)),
        folder=folder,
        checked=checked,
        planned=schedule.plan(file.suite, chosen, folder, checked),
    )


def _expand(file: SuiteFile) -> list[Case]:
    try:
        return expand(file.suite)
    except Faults as error:
        raise file.error(error.faults) from error


def _run(
    one: Loaded,
    options: Options,
    how: How,
    slots: Sequence[processes.Slot],
    fail_fast: bool,
    screen: Screen,
) -> list[Outcome]:
    """Run one suite, print what becomes of each case, and its table."""
    suite, start = one.resolved.suite, time.monotonic()
    done = [item for item in one.planned if item.state == "done"]
    left = len(one.planned) - len(done)
    begun = sum(item.state == "resume" for item in one.planned)
    going_on = f", {begun} of them begun" if begun else ""
    screen.say(
        f"{suite.name}: {len(one.planned)} cases, {len(done)} done before, {left} to go{going_on}"
    )
    screen.reasons([item for item in one.planned if item.state != "failed"])
    for item in done if screen.json_lines else ():
        screen.json_outcome(suite, Outcome(item.case, "ok"), item.task, skipped=True)
    write_resolved(one.folder, one.resolved)
    tasks = {item.case.name: item.task for item in one.planned}
    options = replace(options, num_sharing=max(1, min(how.num_workers, left)))
    engine: Engine = in_process.run
    if how.engine_of(suite) == "process":
        engine = partial(processes.run, slots=slots, timeout_s=how.timeout_s)
    outcomes = []
    with watching(left, screen.console) as watched:

        def announce(task: Task) -> None:
            watched.begin(task.case.name, CaseFolder(task.folder))

        for outcome in schedule.run(one.planned, options, engine, fail_fast, announce):
            outcomes.append(outcome)
            watched.end(outcome.case.name, outcome.seconds)
            screen.outcome(suite, outcome, tasks[outcome.case.name], len(outcomes), left)
    screen.tables(one.planned, time.monotonic() - start)
    return outcomes


@dataclass
class Stop:
    """Whether a run is to stop, and why."""

    deadline: float | None
    asked: bool = False
    terminated: bool = False  # by SIGTERM, which clusters send

    def is_due(self) -> bool:
        """Say whether to stop after saving."""
        return self.asked or (self.deadline is not None and time.monotonic() > self.deadline)


@contextmanager
def _stopping(screen: Screen, deadline: float | None) -> Iterator[Stop]:
    """Let SIGTERM and the first Ctrl-C stop after saving, and the second Ctrl-C at once."""
    stop = Stop(deadline)

    def on_interrupt(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        screen.say("Stopping after this step is saved; Ctrl-C again stops at once.")

    def on_terminate(number: int, frame: object) -> None:
        stop.asked = stop.terminated = True
        screen.say("Stopping after this step is saved, as SIGTERM asks.")

    handlers = {signal.SIGINT: on_interrupt, signal.SIGTERM: on_terminate}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(outcomes: Sequence[Outcome]) -> Exit:
    statuses = {outcome.status for outcome in outcomes}
    if "interrupted" in statuses:
        return Exit.INTERRUPTED
    if statuses & {"failed", "blocked", "stopped"}:
        return Exit.CASE_FAILED
    return Exit.RUNNING_ELSEWHERE if "held" in statuses else Exit.OK


def _nothing_matched(screen: Screen, pattern: str | None) -> Exit:
    screen.say(f"No case matches {pattern!r}.")
    return Exit.NOTHING_MATCHED


def evaluate_target(
    target: Path,
    pattern: str | None,
    settings: Sequence[str],
    where: Where,
    checkpoint: Path | None,
) -> Exit:
    """Score kept weights anew, or a checkpoint of the user's own."""
    screen = Screen(where.json_lines)
    if target.is_dir():
        if pattern or checkpoint or settings:
            raise UserError(
                "The folder of a case is scored as its suite says; --filter, --checkpoint, --set "
                "and --limit go with a suite file."
            )
        return _evaluate_folder(target, where, screen)
    file = load_checked(target, settings)
    chosen = matching(cases := _expand(file), pattern)
    if not chosen:
        return _nothing_matched(screen, pattern)
    if checkpoint is not None:
        own = _own_checkpoint(chosen, checkpoint)
        return run_suites([target], pattern, [*settings, *own], where, retry_failed=True)
    folder = results_folder(where.out, file.suite, settings)
    if (folder / "suite.json").exists():
        resolved = Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases))
        write_resolved(folder, resolved)
    tasks = [_task(file.suite, case, folder / case.folder) for case in chosen]
    return _evaluate(file.suite, tasks, where, screen)


def _own_checkpoint(cases: Sequence[Case], checkpoint: Path) -> list[str]:
    """Return the settings that score a checkpoint instead of training."""
    models = sorted({case.model_name for case in cases})
    if len(models) > 1:
        raise UserError(
            f"--checkpoint is of one model; choose it with --filter (now: {', '.join(models)})."
        )
    if not checkpoint.is_file():
        raise UserError(f"No checkpoint {checkpoint}.")
    weights = json.dumps({"model": str(checkpoint.resolve())})
    return [f"models.{models[0]}.weights={weights}", "recipe.epochs=0"]


def _evaluate_folder(folder: Path, where: Where, screen: Screen) -> Exit:
    record, resolved = read_record(folder), read_resolved(folder.parent)
    if record is None or resolved is None:
        raise UserError(f"{folder} is not the folder of a case; it has no record.json.")
    return _evaluate(resolved.suite, [_task(resolved.suite, record.case, folder)], where, screen)


def _task(suite: Suite, case: Case, folder: Path) -> Task:
    return Task(case, folder, suite.scored, suite.splits.select, suite.keep, suite.cache)


def _evaluate(suite: Suite, tasks: Sequence[Task], where: Where, screen: Screen) -> Exit:
    options = Options(where.device, where.roots, where.loader_workers, where.cache)
    outcomes = []
    for number, task in enumerate(tasks, 1):
        outcomes.append(evaluate_case(task, options))
        screen.outcome(suite, outcomes[-1], task, number, len(tasks))
    return _exit(outcomes)


def validate_suites(
    paths: Sequence[Path], settings: Sequence[str], where: Where, *, deep: bool
) -> None:
    """Say of each suite that it is valid, with a line a case where it was tried."""
    screen = Screen(where.json_lines)
    for path in paths:
        file = load_checked(path, settings)
        cases = _expand(file)
        check(file, cases, where.roots, need_data=deep, device_name=where.device)
        for case, loss in check_deep(file, cases, where.roots, where.device) if deep else ():
            screen.say(f"  {case.name}: loss {loss:.4f}")
        missing = [] if deep else list(_missing(file.suite, cases, where.roots))
        unseen = f"; not there to be looked at: {', '.join(missing)}" if missing else ""
        screen.say(f"{path}: valid, {len(cases)} cases{unseen}")


def _missing(suite: Suite, cases: Sequence[Case], roots: Mapping[str, Path]) -> Iterator[str]:
    """Name the datasets of cases whose folder is not there, and weights whose file is not."""
    used = {name for case in cases for name in (case.dataset_name, case.model_name)}
    for key, spec in suite.datasets.items():
        if key not in used:
            continue
        dataset = open_dataset(key, spec.name, spec.root, spec.options, roots)
        if dataset.needs_root and (dataset.root is None or not dataset.root.is_dir()):
            yield f"the data of {key}"
    for key, model in suite.models.items():
        if key in used and model.weights is not None and model.weights.is_missing:
            yield f"the weights of {key} ({model.weights.source})"
