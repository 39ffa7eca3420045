"""The commands: parse, call, print."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.compare_cli import app as baseline_app
from bench.compare_cli import compare
from bench.data_cli import app as data_app
from bench.errors import Exit, UserError

app = typer.Typer(
    name="bench",
    help="Train and evaluate semantic segmentation networks; make comparison tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(compare)
app.add_typer(baseline_app)
app.add_typer(data_app)


Suites = Annotated[list[Path], typer.Argument(help="suite files")]
Filter = Annotated[str | None, typer.Option("--filter", help="glob on case names")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value laid over the suite, repeatable")
]
Limit = Annotated[
    str | None, typer.Option(help="images of each split: a number or a fraction; --set limit=…")
]
Roots = Annotated[
    list[str] | None, typer.Option("--root", help="name=path of a dataset, repeatable")
]
Out = Annotated[Path, typer.Option(help="folder of results")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")]
LoaderWorkers = Annotated[
    int | None, typer.Option(help="processes that read images; default: as measured")
]
CacheMode = Annotated[
    Literal["auto", "ram", "disk", "none"] | None,
    typer.Option(help="where decoded images are kept; default: as the suite says"),
]
JsonLines = Annotated[bool, typer.Option("--json", help="one line of JSON a case")]


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
        str | None, typer.Option(help="stop after saving: 90 (seconds), 30m, 8h")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="end a case that runs for longer: 90, 30m, 8h")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="cases at once, a GPU or a share of the cores each")
    ] = 1,
    engine: Annotated[
        Literal["process", "in-process"] | None,
        typer.Option(help="a process for each case, or one for all; default: as the suite says"),
    ] = None,
    loader_workers: LoaderWorkers = None,
    cache: CacheMode = None,
    json_lines: JsonLines = False,
) -> None:
    """Train and evaluate the cases of suites; finished ones are skipped.

    Ctrl-C and SIGTERM stop after saving; the same command then goes on.

    Exit codes: 0 all good, 1 a case failed, 2 usage or bad suite, 3 nothing matched,
    4 interrupted after saving, 5 running elsewhere, 6 stopped by SIGTERM after saving.
    """
    from bench.verbs import How, Where, run_suites

    _leave(
        run_suites(
            suites,
            pattern,
            _settings(settings, limit),
            Where(device, _roots(root), out, loader_workers, cache, json_lines),
            dry_run=dry_run,
            retry_failed=retry_failed,
            fail_fast=fail_fast,
            max_time_s=_seconds("--max-time", max_time),
            how=How(engine, workers, _seconds("--timeout", timeout)),
        )
    )


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(help="a suite, or the folder of a case")],
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
    """Score kept weights by the evaluations that are missing, or a checkpoint of your own."""
    from bench.verbs import Where, evaluate_target

    where = Where(device, _roots(root), out, loader_workers, cache, json_lines)
    _leave(evaluate_target(target, pattern, _settings(settings, limit), where, checkpoint))


@app.command()
def report(
    targets: Annotated[
        list[Path] | None, typer.Argument(help="suites or folders; default: all of --results")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="of the files: any of md,latex,csv,json,html,png,pdf")
    ] = "md,latex,csv",
    kinds: Annotated[
        str | None,
        typer.Option("--table", help="only these, such as summary,per_class; see docs/reports.md"),
    ] = None,
    by: Annotated[
        Literal["dataset", "model", "recipe"], typer.Option(help="what a set of tables is of")
    ] = "dataset",
    sort: Annotated[
        str | None, typer.Option(help="a column, best first, such as miou; default: as the suite")
    ] = None,
    reported: Annotated[
        bool, typer.Option("--reported/--no-reported", help="published figures beside ours")
    ] = True,
    prefer: Annotated[
        Literal["newest"] | None,
        typer.Option(help="the record that counts where folders have different ones of a case"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the files; default: beside the records")
    ] = None,
    results: Annotated[Path, typer.Option(help="folder of results")] = Path("results"),
    settings: Settings = None,
    limit: Limit = None,
) -> None:
    """Turn records into tables, curves and words: print the tables, write all as files.

    Folders of one name, such as results_a/voc and results_b/voc, are merged.
    """
    from bench import report as reports
    from bench.report.group import Choice

    choice = Choice(tuple(_names(kinds)) or None, by, sort, reported)
    made = reports.report(targets or [], results, _settings(settings, limit), choice, prefer)
    files = reports.write(made, _names(formats), out)
    for one in made:
        typer.echo(f"# {one.title}\n\n{reports.text(one)}")
    if files:
        where = ", ".join(sorted({str(file.parent) for file in files}))
        typer.echo(f"Written: {len(files)} files in {where}")


@app.command(name="list")
def list_names(
    kind: Annotated[str, typer.Argument(help="models, datasets, encoders or suites")],
    matching: Annotated[str, typer.Option("--filter", help="glob on the names")] = "*",
    layers: Annotated[
        str | None, typer.Option(help="of models: the layer tables of this one instead")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="with --layers: option=value, repeatable")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="with --layers: md, latex or csv")
    ] = None,
) -> None:
    """List the models, datasets, encoders or suites there are; with --layers, a model's layers."""
    if layers is not None:
        from bench.listing import layer_text

        if kind != "models":
            raise UserError(f"--layers goes with models: bench list models --layers {layers}.")
        typer.echo(layer_text(layers, settings or [], form or "md"))
        return
    if settings or form:
        raise UserError("--set and --format go with --layers NAME.")
    from bench.listing import listed

    lines = listed(kind, matching)
    if not lines:
        typer.echo(f"No name in {kind} matches {matching!r}.", err=True)
        raise typer.Exit(Exit.NOTHING_MATCHED)
    for line in lines:
        typer.echo(line)


@app.command()
def validate(
    suites: Suites,
    settings: Settings = None,
    limit: Limit = None,
    root: Roots = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="data present, one forward and backward of every pair")
    ] = False,
    device: Device = "auto",
) -> None:
    """Check suites: schema, names, shapes; with --deep the data and a training step too."""
    from bench.verbs import Where, validate_suites

    where = Where(device, _roots(root), Path("results"), None, None, json_lines=False)
    validate_suites(suites, _settings(settings, limit), where, deep=deep)


@app.command()
def profile(
    suite: Annotated[Path, typer.Argument(help="suite file")],
    pattern: Filter = None,
    settings: Settings = None,
    device: Device = "auto",
    out: Out = Path("results"),
    json_lines: JsonLines = False,
) -> None:
    """Count the parameters and MACs of a suite's networks and time them; needs no data."""
    from bench.profile_verbs import profile_suite

    _leave(profile_suite(suite, pattern, settings or [], device, out, json_lines))


@app.command()
def selftest(device: Device = "auto") -> None:
    """Find out in a minute whether this machine trains properly; exit code 1 where it does not."""
    from bench.device import pick_device
    from bench.selftest import selftest as checks

    on = pick_device(device)
    num, failed = 0, 0
    for check in checks(on):
        num, failed = num + 1, failed + (not check.passed)
        mark = "ok  " if check.passed else "FAIL"
        typer.echo(f"{mark} {check.name:38} {check.detail} ({check.seconds:.1f} s)")
    typer.echo(f"{num - failed} of {num} checks passed on {on}.")
    _leave(Exit.CASE_FAILED if failed else Exit.OK)


@app.command()
def schema(
    form: Annotated[
        Literal["json", "md"], typer.Option("--format", help="json: for editors; md: for people")
    ] = "json",
) -> None:
    """Print all that a suite file can say, as JSON Schema or as tables."""
    import json

    from bench.json_schema import json_schema
    from bench.schema_text import markdown

    found = json_schema()
    typer.echo(json.dumps(found, indent=2) if form == "json" else markdown(found))


@app.command()
def show(
    case: Annotated[str, typer.Argument(help="a case's folder, or a glob on folder names")],
    results: Annotated[Path, typer.Option(help="folder of results")] = Path("results"),
) -> None:
    """Show one record in full, with the command that repeats it."""
    from bench.listing import shown

    typer.echo(shown(case, results))


@app.command()
def rm(
    pattern: Annotated[str, typer.Argument(help="glob on case names")] = "",
    stale: Annotated[
        bool, typer.Option("--stale", help="those that are no longer of their suite")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="those that failed")] = False,
    results: Annotated[Path, typer.Option(help="folder of results")] = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Remove cases from the results, by glob or by state; published ones stay."""
    from bench.listing import remove

    removed = remove(results, pattern, stale=stale, failed=failed, dry_run=dry_run)
    for folder in removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {folder}")
    if not removed:
        typer.echo("No case matched.", err=True)
        raise typer.Exit(Exit.NOTHING_MATCHED)


@app.command()
def env(json_lines: JsonLines = False) -> None:
    """Show the machine and the versions, as records keep them."""
    import json

    from bench.device import describe_device, pick_device
    from bench.environment import environment

    facts = dict(environment())
    try:
        device = pick_device("auto")
        facts |= {"device": str(device)} | describe_device(device)
    except UserError as error:
        facts["device"] = str(error)
    if json_lines:
        typer.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        typer.echo(f"{key:16} {value}")


def _settings(settings: list[str] | None, limit: str | None) -> list[str]:
    return [*(settings or []), *([f"limit={limit}"] if limit is not None else [])]


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


def _leave(code: int) -> None:
    if code:
        raise typer.Exit(code)


def _roots(given: list[str] | None) -> dict[str, Path]:
    roots = {}
    for item in given or []:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise UserError(f"--root takes name=path, such as camvid=/data/camvid, not {item!r}.")
        roots[name] = Path(path).expanduser()
    return roots


def _seconds(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UserError(f"{flag} takes 90, 90s, 30m or 8h, not {text!r}.")
    return seconds


def main(args: Any = None) -> None:
    """Run the command line; a user's mistake is one message and the exit code of a bad suite."""
    try:
        app(args)
    except UserError as error:
        typer.echo(f"Error: {error}" if "\n" not in str(error) else str(error), err=True)
        sys.exit(Exit.USAGE)
