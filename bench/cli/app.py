"""The command line: parse, call, print."""

import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.compare_app import app as baseline_app
from bench.cli.compare_app import compare
from bench.cli.console import Console
from bench.cli.data_app import app as data_app
from bench.cli.options import (
    CacheMode,
    Device,
    Filter,
    JsonLines,
    Limit,
    LoaderWorkers,
    Out,
    Results,
    Roots,
    Settings,
    Suites,
    Where,
    all_settings,
    leave,
    read_names,
    read_seconds,
)
from bench.errors import Exit, UserError
from bench.machine.files import CannotWrite

CLOSED_PIPE = 128 + 13  # as the shell reports SIGPIPE

app = typer.Typer(
    name="bench",
    help="Train and evaluate semantic segmentation networks, and make comparison tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(compare)
app.add_typer(baseline_app)
app.add_typer(data_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from bench import __version__

        Console().say(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _flags(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Train and evaluate semantic segmentation networks, and make comparison tables."""


@app.command()
def run(
    suites: Suites,
    pattern: Filter = None,
    limit: Limit = None,
    settings: Settings = None,
    device: Device = "auto",
    root: Roots = None,
    out: Out = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the plan, train nothing")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="run failed cases again")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="stop at the first failed case")
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(help="save and stop after this time: 90 (seconds), 30m, 8h")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="end a case that runs for longer: 90, 30m, 8h")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="cases at once, each with a GPU or a share of the cores")
    ] = 1,
    gpus_per_case: Annotated[
        int, typer.Option(min=1, help="train each case on several GPUs, by a process on each")
    ] = 1,
    engine: Annotated[
        Literal["process", "in-process", "slurm", "ray"] | None,
        typer.Option(
            help="one process per case, one for all, jobs of Slurm, or a Ray cluster; default: as "
            "the suite says"
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="of the Ray cluster; default: RAY_ADDRESS, or one for this run"),
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option(help="with --engine slurm: what the jobs ask for (YAML)")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait for what other hosts, or Slurm's jobs, run, too")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="run only a share of the cases: 2/8 is the second of 8"),
    ] = None,
    loader_workers: LoaderWorkers = None,
    cache: CacheMode = None,
    json_lines: JsonLines = False,
) -> None:
    """Train and evaluate the cases of suites; finished cases are skipped.

    Ctrl-C and the signals of clusters save and stop; the same command then continues. Several hosts
    can run the same command on a shared folder: each case is run by one of them.

    Exit codes: 0 all cases are ok, 1 a case failed or results cannot be written, 2 usage or a bad
    suite, 3 nothing matched, 4 interrupted after saving, 5 running elsewhere, 6 stopped by a
    signal after saving.
    """
    from bench.cli.commands.run import run_suites
    from bench.runner.placing import Placing
    from bench.runner.shard import read_shard

    leave(
        run_suites(
            suites,
            pattern,
            all_settings(settings, limit),
            Where(device, root or (), out, loader_workers, cache),
            Console(json_lines),
            Placing(
                engine,
                workers,
                read_seconds("--timeout", timeout),
                cluster,
                wait,
                ray_address,
                gpus_per_case,
            ),
            dry_run=dry_run,
            retry_failed=retry_failed,
            fail_fast=fail_fast,
            max_time_s=read_seconds("--max-time", max_time),
            shard=read_shard(shard),
        )
    )


@app.command()
def evaluate(
    target: Annotated[str, typer.Argument(help="a suite, or the folder of a case")],
    pattern: Filter = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="score these weights of your own, without training")
    ] = None,
    limit: Limit = None,
    settings: Settings = None,
    device: Device = "auto",
    root: Roots = None,
    out: Out = Path("results"),
    loader_workers: LoaderWorkers = None,
    cache: CacheMode = None,
    json_lines: JsonLines = False,
) -> None:
    """Run the evaluations that finished cases still lack, on their kept weights.

    With --checkpoint, score weights of your own.
    """
    from bench.cli.commands.evaluate import evaluate_target

    where = Where(device, root or (), out, loader_workers, cache)
    changes, console = all_settings(settings, limit), Console(json_lines)
    leave(evaluate_target(target, pattern, changes, where, checkpoint, console))


@app.command()
def report(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(help="suites or folders; default: every suite in --results"),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="formats of the files, separated by commas: md, latex, csv, json, html, png, pdf",
        ),
    ] = "md,latex,csv",
    kinds: Annotated[
        str | None,
        typer.Option(
            "--table", help="only these tables, such as summary,per_class; see docs/reports.md"
        ),
    ] = None,
    by: Annotated[
        Literal["dataset", "model", "recipe"],
        typer.Option(help="make one set of tables per dataset, model or recipe"),
    ] = "dataset",
    sort: Annotated[
        str | None,
        typer.Option(
            help="sort the rows by this column, best first, such as miou; default: the suite's "
            "order"
        ),
    ] = None,
    reported: Annotated[
        bool, typer.Option("--reported/--no-reported", help="published figures beside ours")
    ] = True,
    prefer: Annotated[
        Literal["newest"] | None,
        typer.Option(help="which record to use if folders have different records of one case"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the files; default: beside the records")
    ] = None,
    results: Results = Path("results"),
    settings: Settings = None,
    limit: Limit = None,
) -> None:
    """Turn records into tables, curves and text: print the tables, write everything as files.

    Folders with the same name, such as results_a/voc and results_b/voc, are merged.
    """
    from bench.cli.commands.report import report_targets
    from bench.report.group import Choice

    choice = Choice(tuple(read_names(kinds)) or None, by, sort, reported)
    changes, console = all_settings(settings, limit), Console()
    report_targets(
        targets or [], results, changes, choice, prefer, read_names(formats), out, console
    )


@app.command(name="list")
def list_names(
    kind: Annotated[str, typer.Argument(help="models, datasets, encoders or suites")],
    matching: Annotated[
        str | None, typer.Option("--filter", help="glob on the names; default: all")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="with models: the layer tables of this one instead")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="with --layers: option=value, repeatable")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="with --layers: md, latex or csv")
    ] = None,
) -> None:
    """List the names that a suite can use; with --layers, the layers of a model."""
    console = Console()
    if layers is not None:
        from bench.cli.commands.list import layer_text

        if kind != "models":
            raise UserError(f"--layers goes with models: bench list models --layers {layers}.")
        if matching is not None:
            raise UserError("Give --layers or --filter, not both.")
        console.say(layer_text(layers, settings or [], form or "md"))
        return
    if settings or form:
        raise UserError("--set and --format go with --layers NAME.")
    from bench.cli.commands.list import matching_names

    lines = matching_names(kind, matching or "*")
    if not lines:
        console.warn(f"No name in {kind} matches {matching!r}.")
        raise typer.Exit(Exit.NOTHING_MATCHED)
    for line in lines:
        console.say(line)


@app.command()
def validate(
    suites: Suites,
    settings: Settings = None,
    limit: Limit = None,
    root: Roots = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="also the data, and one training step of every pair")
    ] = False,
    device: Device = "auto",
) -> None:
    """Check suites: schema, names and shapes; with --deep also the data and a training step."""
    from bench.cli.commands.validate import validate_suites

    where = Where(device, root or ())
    validate_suites(suites, all_settings(settings, limit), where, Console(), deep=deep)


@app.command()
def profile(
    suite: Annotated[str, typer.Argument(help="suite file, or the name of a shipped suite")],
    pattern: Filter = None,
    settings: Settings = None,
    size: Annotated[
        str | None, typer.Option(help="HxW of the images, such as 360x640; default: the recipe's")
    ] = None,
    batch_size: Annotated[str, typer.Option(help="images in a timed pass: 1 or 1,8")] = "1",
    precision: Annotated[
        str | None, typer.Option(help="such as fp32,bf16; default: the recipe's")
    ] = None,
    memory_format: Annotated[
        str | None,
        typer.Option(help="contiguous, channels_last or both; default: the recipe's"),
    ] = None,
    compile_modes: Annotated[
        str | None,
        typer.Option("--compile", help="modes of torch.compile, such as none,default"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: as torch chooses")
    ] = None,
    device: Device = "auto",
    out: Out = Path("results"),
    json_lines: JsonLines = False,
) -> None:
    """Count the parameters and MACs of a suite's networks and time them; needs no data.

    All networks are timed at one image size; one that would take too long is left blank. Several
    values, separated by commas, are timed one after another and shown in one table.
    """
    from bench.cli.commands.profile import profile_suite, read_conditions

    conditions = read_conditions(size, threads, batch_size, precision, memory_format, compile_modes)
    console = Console(json_lines)
    leave(profile_suite(suite, pattern, settings or [], device, out, console, conditions))


@app.command()
def selftest(device: Device = "auto") -> None:
    """Find out in a minute whether this machine trains properly; if not, the exit code is 1."""
    from bench.cli.commands.selftest import selftest as checks
    from bench.machine.device import pick_device

    on, console = pick_device(device), Console()
    num, failed = 0, 0
    for check in checks(on):
        num, failed = num + 1, failed + (not check.passed)
        mark = "ok  " if check.passed else "FAIL"
        console.say(f"{mark} {check.name:38} {check.detail} ({check.seconds:.1f} s)")
    console.say(f"{num - failed} of {num} checks passed on {on}.")
    leave(Exit.NEGATIVE if failed else Exit.OK)


@app.command()
def schema(
    form: Annotated[
        Literal["json", "md"], typer.Option("--format", help="json: for editors; md: for people")
    ] = "json",
) -> None:
    """Print every key of a suite file, as JSON Schema or as tables."""
    import json

    from bench.suite.json_schema import json_schema, markdown

    found = json_schema()
    Console().say(json.dumps(found, indent=2) if form == "json" else markdown(found))


@app.command()
def show(
    case: Annotated[str, typer.Argument(help="a case's folder, or a glob on folder names")],
    results: Results = Path("results"),
) -> None:
    """Show one record in full, with the command that repeats it."""
    from bench.cli.commands.results import shown

    Console().say(shown(case, results))


@app.command()
def status(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="suites or folders; default: every suite in --results"),
    ] = None,
    results: Results = Path("results"),
    watch: Annotated[
        bool, typer.Option("--watch", help="show it again every 5 s until all is over")
    ] = False,
    settings: Settings = None,
    limit: Limit = None,
    json_lines: JsonLines = False,
) -> None:
    """Show what runs on all hosts, what waits and what failed, from the folder of results."""
    from bench.cli.commands.status import show_status

    changes = all_settings(settings, limit)
    show_status(targets or [], results, changes, Console(json_lines), watch=watch)


@app.command()
def rm(
    pattern: Annotated[str, typer.Argument(help="glob on case names")] = "",
    stale: Annotated[
        bool, typer.Option("--stale", help="cases that are no longer in their suite")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="cases that failed")] = False,
    results: Results = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only list what would be removed")
    ] = False,
) -> None:
    """Remove cases from the results, by glob or by state; published and running ones stay."""
    from bench.cli.commands.results import remove

    console = Console()
    removed, running = remove(results, pattern, stale=stale, failed=failed, dry_run=dry_run)
    for folder in removed:
        console.say(f"{'would remove' if dry_run else 'removed'} {folder}")
    for folder in running:
        console.warn(f"kept {folder}: it is running")
    if not (removed or running):
        console.warn("No case matched.")
        raise typer.Exit(Exit.NOTHING_MATCHED)


@app.command()
def env(json_lines: JsonLines = False) -> None:
    """Show the machine and the versions, as records keep them."""
    from bench.machine.device import describe_device, pick_device
    from bench.machine.environment import environment

    console, facts = Console(json_lines), dict(environment())
    try:
        device = pick_device("auto")
        facts |= {"device": str(device)} | describe_device(device)
    except UserError as error:
        facts["device"] = str(error)
    if json_lines:
        console.json(facts)
        return
    for key, value in facts.items():
        console.say(f"{key:16} {value}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and exit.

    A user's mistake is one message. An unexpected error has an exit code of its own, so that it
    is never taken for a negative answer, such as a comparison's "worse".
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # LC_ALL=C: letters that it lacks as their codes
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args)
    except UserError as error:
        Console().warn(f"Error: {error}" if "\n" not in str(error) else str(error))
        sys.exit(Exit.NEGATIVE if isinstance(error, CannotWrite) else Exit.USAGE)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # such as bench … | head -1
            sys.exit(CLOSED_PIPE)
        raise
    except Exception:  # our own fault: its traceback, and not Python's exit code 1
        traceback.print_exc()
        sys.exit(Exit.CRASHED)
