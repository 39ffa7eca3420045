"""What `run`, `evaluate` and `validate` do, and what they print."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tabulate import tabulate

from bench import report, schedule
from bench.case import Case, expand, matching
from bench.errors import Exit, Faults, UserError
from bench.progress import duration, watching
from bench.record import (
    CaseFolder,
    Resolved,
    read_evaluations,
    read_record,
    read_resolved,
    results_folder,
    write_resolved,
)
from bench.runner import Options, Outcome, Task, evaluate_case
from bench.suite import Suite, SuiteFile
from bench.validate import Checked, check, check_deep, load_checked


@dataclass(frozen=True)
class Loaded:
    """A valid suite with the cases that were asked for, checked and looked up."""

    file: SuiteFile
    cases: list[Case]
    checked: Mapping[str, Checked]
    planned: list[schedule.Planned]

    @property
    def suite(self) -> Suite:
        """The suite."""
        return self.file.suite


def run_suites(
    paths: Sequence[Path],
    *,
    pattern: str | None,
    settings: Sequence[str],
    device: str,
    roots: Mapping[str, Path],
    out: Path,
    dry_run: bool,
    retry_failed: bool,
    fail_fast: bool,
    max_time_s: float | None,
    loader_workers: int | None,
    json_lines: bool,
) -> Exit:
    """Check every suite, then run what is left of them."""
    console = Console(stderr=json_lines, highlight=False)
    loaded = [_load(path, settings, pattern, roots, out) for path in paths]
    loaded = [one for one in loaded if one.planned]
    if not loaded:
        console.print(f"No case matches {pattern!r}.", markup=False)
        return Exit.NOTHING_MATCHED
    if dry_run:
        for one in loaded:
            _print_plan(one, out, console)
        return Exit.OK
    schedule.check_disk(out, sum(schedule.disk_needed(x.planned, x.checked) for x in loaded))
    deadline = None if max_time_s is None else time.monotonic() + max_time_s
    outcomes: list[Outcome] = []
    with _stopping(console, deadline) as should_stop:
        options = Options(device, roots, loader_workers, should_stop)
        for one in loaded:
            new = _run(one, out, options, retry_failed, fail_fast, json_lines, console)
            outcomes += new
            ended = any(outcome.status == "interrupted" for outcome in new)
            if ended or (fail_fast and any(outcome.status == "failed" for outcome in new)):
                break
    return _exit(outcomes)


def _load(
    path: Path,
    settings: Sequence[str],
    pattern: str | None,
    roots: Mapping[str, Path],
    out: Path,
) -> Loaded:
    file = load_checked(path, settings)
    cases = _expand(file)
    chosen = matching(cases, pattern)
    checked = check(file, chosen, roots, need_data=True)
    return Loaded(file, cases, checked, schedule.plan(file.suite, chosen, out, checked))


def _expand(file: SuiteFile) -> list[Case]:
    try:
        return expand(file.suite)
    except Faults as error:
        raise file.error(error.faults) from error


def _run(
    one: Loaded,
    out: Path,
    options: Options,
    retry_failed: bool,
    fail_fast: bool,
    json_lines: bool,
    console: Console,
) -> list[Outcome]:
    """Run one suite, print what becomes of each case, and its table."""
    done = [p for p in one.planned if p.state == "done"]
    left = len(one.planned) - len(done)
    console.print(
        f"{one.suite.name}: {len(one.planned)} cases, {len(done)} done before, {left} to go",
        markup=False,
    )
    for item in one.planned:
        if item.reason is not None and item.state in ("done", "stale"):
            console.print(f"  {item.case.name}: {item.state}, {item.reason}", markup=False)
        if json_lines and item.state == "done":
            _print_json(one.suite, Outcome(item.case, "ok"), item.task)
    tasks = {item.case.id: item.task for item in one.planned}
    outcomes = []
    start = time.monotonic()
    with watching(left, console) as watched:
        steps = schedule.run(
            one.suite,
            one.cases,
            one.planned,
            out,
            options,
            retry_failed,
            fail_fast,
            lambda item: watched.begin(item.case.name, CaseFolder(item.task.folder)),
        )
        for outcome in steps:
            outcomes.append(outcome)
            watched.end(outcome.seconds)
            task = tasks[outcome.case.id]
            console.print(_line(outcome, task, len(outcomes), left), markup=False, soft_wrap=True)
            if json_lines:
                _print_json(one.suite, outcome, task)
    folder = results_folder(out, one.suite)
    if any(CaseFolder(item.task.folder).record.exists() for item in one.planned):
        [made] = report.report([folder], out)
        report.write([made], ["md", "latex", "csv"], None)
        spent = duration(time.monotonic() - start)
        if not json_lines:
            console.print(f"\n{report.text(made, made.tables[:1])}", markup=False, soft_wrap=True)
        console.print(
            f"\nIn {spent}. Records: {folder}   Tables: {folder / 'report'}",
            markup=False,
            soft_wrap=True,
        )
    return outcomes


def _line(outcome: Outcome, task: Task, number: int, total: int) -> str:
    """Say on one line what became of a case."""
    head = f"[{number}/{total}] {outcome.case.name}: "
    if outcome.status != "ok":
        return f"{head}{outcome.status}: {outcome.reason}"
    figures = [
        f"{e.name} mIoU {100 * (e.scores['miou'] or 0):.2f} %"
        for e in read_evaluations(task.folder)
    ]
    return f"{head}ok, {', '.join(figures)}, {duration(outcome.seconds)}"


def _print_json(suite: Suite, outcome: Outcome, task: Task) -> None:
    line: dict[str, Any] = {
        "suite": suite.name,
        "case": outcome.case.name,
        "id": outcome.case.id,
        "status": outcome.status,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
        "folder": str(task.folder),
    }
    if outcome.status == "ok":
        line["scores"] = {e.name: e.scores for e in read_evaluations(task.folder)}
    print(json.dumps(line), flush=True)


def _print_plan(one: Loaded, out: Path, console: Console) -> None:
    rows = []
    for item in one.planned:
        facts = one.checked[item.case.id].facts
        recipe = item.case.recipe
        length = f"{recipe.steps} steps" if recipe.steps else f"{recipe.epochs} epochs"
        params, size = f"{facts.num_params / 1e6:.2f}", f"{facts.size[0]}x{facts.size[1]}"
        name = item.case.name
        rows.append([name, item.state, params, size, f"{facts.gmacs:.2f}", length])
    headers = ["case", "state", "params [M]", "input", "MACs [G]", "training"]
    needed = schedule.disk_needed(one.planned, one.checked)
    console.print(tabulate(rows, headers, disable_numparse=True), markup=False, soft_wrap=True)
    console.print(
        f"\n{len(rows)} cases of {one.suite.name} in {results_folder(out, one.suite)}; "
        f"{sum(item.state == 'done' for item in one.planned)} done; "
        f"at most {needed / 1e9:.2f} GB of disk.",
        markup=False,
        soft_wrap=True,
    )
    for item in one.planned:
        if item.reason is not None:
            console.print(f"{item.case.name}: {item.reason}", markup=False, soft_wrap=True)


@contextmanager
def _stopping(console: Console, deadline: float | None) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C stop after saving and the second at once."""
    stop = threading.Event()

    def on_interrupt(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.print("Stopping after this step is saved; Ctrl-C again stops at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: stop.is_set() or (deadline is not None and time.monotonic() > deadline)
    finally:
        signal.signal(signal.SIGINT, before)


def _exit(outcomes: Sequence[Outcome]) -> Exit:
    statuses = {outcome.status for outcome in outcomes}
    if "interrupted" in statuses:
        return Exit.INTERRUPTED
    if statuses & {"failed", "blocked"}:
        return Exit.CASE_FAILED
    return Exit.RUNNING_ELSEWHERE if "held" in statuses else Exit.OK


def evaluate_target(
    target: Path,
    *,
    pattern: str | None,
    checkpoint: Path | None,
    settings: Sequence[str],
    device: str,
    roots: Mapping[str, Path],
    out: Path,
    loader_workers: int | None,
    json_lines: bool,
) -> Exit:
    """Score kept weights anew, or a checkpoint of the user's own."""
    if target.is_dir():
        return _evaluate_folder(target, device, roots, loader_workers, json_lines)
    if checkpoint is not None:
        settings = [*settings, *_own_checkpoint(target, settings, pattern, checkpoint)]
        return run_suites(
            [target],
            pattern=pattern,
            settings=settings,
            device=device,
            roots=roots,
            out=out,
            dry_run=False,
            retry_failed=True,
            fail_fast=False,
            max_time_s=None,
            loader_workers=loader_workers,
            json_lines=json_lines,
        )
    file = load_checked(target, settings)
    cases = _expand(file)
    chosen = matching(cases, pattern)
    if not chosen:
        Console(stderr=True).print(f"No case matches {pattern!r}.", markup=False)
        return Exit.NOTHING_MATCHED
    folder = results_folder(out, file.suite)
    tasks = [_task(file.suite, case, folder) for case in chosen]
    options = Options(device, roots, loader_workers)
    code = _evaluate(file.suite, tasks, options, json_lines)
    write_resolved(folder, Resolved(suite=file.suite, cases=tuple(cases)))
    return code


def _own_checkpoint(
    suite: Path, settings: Sequence[str], pattern: str | None, checkpoint: Path
) -> list[str]:
    """Return the settings that score a checkpoint instead of training."""
    models = {case.model_name for case in matching(_expand(load_checked(suite, settings)), pattern)}
    if len(models) != 1:
        raise UserError(
            f"--checkpoint is of one model; choose it with --filter (now: {', '.join(models)})."
        )
    weights = json.dumps({"model": str(checkpoint.resolve())})
    return [f"models.{models.pop()}.weights={weights}", "recipe.epochs=0"]


def _evaluate_folder(
    folder: Path,
    device: str,
    roots: Mapping[str, Path],
    loader_workers: int | None,
    json_lines: bool,
) -> Exit:
    record, resolved = read_record(folder), read_resolved(folder.parent)
    if record is None or resolved is None:
        raise UserError(f"{folder} is not the folder of a case; it has no record.json.")
    task = _task(resolved.suite, record.case, folder.parent)
    return _evaluate(resolved.suite, [task], Options(device, roots, loader_workers), json_lines)


def _task(suite: Suite, case: Case, folder: Path) -> Task:
    return Task(case, folder / case.folder, suite.scored, suite.splits.select, suite.keep)


def _evaluate(suite: Suite, tasks: Sequence[Task], options: Options, json_lines: bool) -> Exit:
    console = Console(stderr=json_lines, highlight=False)
    outcomes = []
    for number, task in enumerate(tasks, 1):
        outcome = evaluate_case(task, options)
        outcomes.append(outcome)
        console.print(_line(outcome, task, number, len(tasks)), markup=False, soft_wrap=True)
        if json_lines:
            _print_json(suite, outcome, task)
    return _exit(outcomes)


def validate_suites(
    paths: Sequence[Path],
    settings: Sequence[str],
    roots: Mapping[str, Path],
    deep: bool,
    device: str,
) -> None:
    """Say of each suite that it is valid, with a line a case where it was tried."""
    console = Console(highlight=False)
    for path in paths:
        file = load_checked(path, settings)
        cases = _expand(file)
        check(file, cases, roots, need_data=deep)
        for case, loss in check_deep(file, cases, roots, device) if deep else ():
            console.print(f"  {case.name}: loss {loss:.4f}", markup=False, soft_wrap=True)
        console.print(f"{path}: valid, {len(cases)} cases", markup=False, soft_wrap=True)
