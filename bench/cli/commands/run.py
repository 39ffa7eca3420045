"""The command `run`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tabulate import tabulate

from bench.cli.console import Console
from bench.cli.options import Where
from bench.cli.outcomes import Outcomes, exit_code, nothing_matched
from bench.cli.progress import watching
from bench.errors import Exit
from bench.records.case_folder import CaseFolder
from bench.report.report import report
from bench.report.write import USUAL_FORMATS, write
from bench.runner.gpus_per_case import as_started
from bench.runner.placing import Placing
from bench.runner.plan import Planned
from bench.runner.result import VERSION
from bench.runner.run_suite import (
    PlannedSuite,
    must_stop,
    plan_suites,
    require_disk,
    require_engines,
    run_suite,
    submission_text,
    total_disk,
)
from bench.runner.shard import Shard
from bench.runner.stopping import stopping
from bench.runner.task import Options, Outcome, Task
from bench.runner.validate import missing_files, remarks
from bench.suite.load import SuiteSource
from bench.text import duration, plural

PLAN_HEADERS = ["case", "state", "params [M]", "input", "MACs [G]", "training"]


def run_suites(
    sources: Sequence[SuiteSource],
    pattern: str | None,
    settings: Sequence[str],
    where: Where,
    console: Console,
    placing: Placing | None = None,
    *,
    dry_run: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    max_time_s: float | None = None,
    shard: Shard | None = None,
) -> Exit:
    """Check every suite, then run what is left of them."""
    started = as_started(placing or Placing())
    if started is None:
        return Exit.OK
    placing = started
    options = replace(where.options(), retry_failed=retry_failed)
    suites = plan_suites(
        sources,
        settings,
        pattern,
        where.out,
        placing.here(options),
        need_data=not dry_run,
        shard=shard,
    )
    if not suites:
        return nothing_matched(console, pattern)
    require_engines(suites, options, placing)
    for one in suites:
        cases = [item.case for item in one.planned]
        for remark in remarks(one.suite, cases, options.roots, one.checked):
            console.say(f"Note: {remark}.")
    if dry_run:
        for one in suites:
            _show_plan(one, options, console)
            if text := submission_text(one, options, placing):
                console.say(text)
        console.say(f"At most {total_disk(suites, placing) / 1e9:.2f} GB of disk space.")
        return Exit.OK
    require_disk(suites, where.out, placing)
    outcomes: list[Outcome] = []
    with stopping(_said_on_stop(placing, console), max_time_s) as stop:
        options = replace(options, should_stop=stop.is_due)
        if placing.wait and placing.cluster and len(suites) > 1:
            for one in suites:  # all are submitted before the first is waited for
                list(run_suite(one, options, replace(placing, wait=False)))
            options = replace(options, retry_failed=False)
        for one in suites:
            outcomes += (new := _run(one, options, placing, fail_fast, console))
            if must_stop(new, fail_fast=fail_fast):
                break
    code = exit_code(outcomes)
    return Exit.TERMINATED if stop.terminated and code == Exit.INTERRUPTED else code


def _run(
    one: PlannedSuite, options: Options, placing: Placing, fail_fast: bool, console: Console
) -> list[Outcome]:
    """Run one suite, print what becomes of each case, and its table."""
    start, left = time.monotonic(), len(one.left)
    console.say(_heading(one))
    _say_reasons([item for item in one.planned if item.state != "failed"], console)
    shown = Outcomes(one.suite, left, console)
    for item in one.planned:
        if item.is_done:
            shown.add_json(Outcome(item.case, "ok"), item.task, skipped=True)
    tasks = {item.case.name: item.task for item in one.planned}
    with watching(left, console) as watched:

        def announce(task: Task) -> None:
            watched.begin(task.case.name, CaseFolder(task.folder))

        def tell(outcome: Outcome) -> None:
            if placing.wait:
                console.say(f"  waiting for {outcome.case.name}: {outcome.reason}")

        outcomes = run_suite(
            one, options, placing, fail_fast=fail_fast, announce=announce, tell=tell
        )
        for outcome in outcomes:
            watched.end(outcome.case.name, outcome.seconds)
            shown.add(outcome, tasks[outcome.case.name])
    _report(one, time.monotonic() - start, console)
    if num := sum(outcome.status == "submitted" for outcome in shown.ended):
        console.say(
            f"Slurm has {plural(num, 'case')}. The same command collects those that have ended, "
            "and with --wait watches them."
        )
    return shown.ended


def _said_on_stop(placing: Placing, console: Console) -> Callable[[str], None]:
    """Return what prints a request to stop; jobs of a cluster are not stopped."""
    if placing.cluster is None:
        return console.say
    return lambda text: console.say(
        "Leaving; what was submitted goes on (scancel ends it). The same command collects it."
    )


def _heading(one: PlannedSuite) -> str:
    num, left = len(one.planned), len(one.left)
    begun = sum(item.state == "resume" for item in one.planned)
    resuming = f" ({begun} from a checkpoint)" if begun else ""
    return f"{one.suite.name}: {plural(num, 'case')}, {num - left} done, {left} to run{resuming}"


def _report(one: PlannedSuite, seconds: float, console: Console) -> None:
    """Write the report of a suite, print its summary, and say where everything is."""
    if not any(CaseFolder(item.task.folder).record.exists() for item in one.planned):
        return
    [made] = report([one.folder], one.folder.parent)
    write([made], USUAL_FORMATS, None)
    if not console.json_lines:
        console.say("")
        console.report(made, [table for table in made.tables if table.kind == "summary"])
    tables = one.folder / "report"
    console.say(f"\nFinished in {duration(seconds)}. Records: {one.folder}   Tables: {tables}")


def _show_plan(one: PlannedSuite, options: Options, console: Console) -> None:
    """Print what would run, and which files are not there."""
    if console.json_lines:
        for item in one.planned:
            console.json(_plan_line(one, item))
    else:
        rows = [_plan_row(one, item) for item in one.planned]
        done = len(one.planned) - len(one.left)
        console.say(tabulate(rows, PLAN_HEADERS, disable_numparse=True))
        console.say(f"\n{one.suite.name}: {plural(len(rows), 'case')} in {one.folder}, {done} done")
        _say_reasons(one.planned, console)
    for what in missing_files(one.suite, [item.case for item in one.planned], options.roots):
        console.say(f"Note: {what}.")


def _plan_row(one: PlannedSuite, item: Planned) -> list[str]:
    recipe, facts = item.case.recipe, one.checked[item.case.name].facts
    return [
        item.case.name,
        item.state,
        f"{facts.num_params / 1e6:.2f}",
        f"{facts.size[0]}x{facts.size[1]}",
        f"{facts.gmacs:.2f}",
        recipe.length,
    ]


def _plan_line(one: PlannedSuite, item: Planned) -> dict[str, object]:
    return {
        "version": VERSION,
        "suite": one.suite.name,
        "case": item.case.name,
        "id": item.case.id,
        "state": item.state,
        "reason": item.reason,
        "num_params": one.checked[item.case.name].facts.num_params,
    }


def _say_reasons(planned: Sequence[Planned], console: Console) -> None:
    """Say why cases are in the state they are in."""
    for item in planned:
        if item.reason is not None:
            console.say(f"  {item.case.name}: {item.state}, {item.reason}")
