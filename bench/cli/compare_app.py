"""The commands `compare` and `baseline`: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import Console
from bench.cli.options import Results, all_settings, leave
from bench.errors import UserError

app = typer.Typer(
    name="baseline",
    help="Keep a suite's figures as a small JSON file to compare later runs with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def compare(
    base: Annotated[Path, typer.Argument(help="a baseline (.json), a suite or a folder")],
    new: Annotated[
        Path | None,
        typer.Argument(help="the same; default: the records of BASE's suite in --results"),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate", help="fail also if NEW lacks a case or score of BASE, or is not comparable"
        ),
    ] = False,
    gate_time: Annotated[
        bool,
        typer.Option(
            "--gate-time",
            help="fail also if time or memory is worse or not comparable; without it, they are "
            "advice",
        ),
    ] = False,
    factor: Annotated[
        float, typer.Option(help="factor by which time or memory must grow to be worse")
    ] = 1.5,
    results: Results = Path("results"),
    json_lines: Annotated[
        bool, typer.Option("--json", help="print one line of JSON per suite, with all that changed")
    ] = False,
    line: Annotated[bool, typer.Option("--line", help="print one line per suite")] = False,
) -> None:
    """Print what changed between two sets of records, and whether it is noise, as Markdown.

    Exit codes: 0 nothing worse, 1 worse, 2 usage, 7 nothing was compared.
    """
    from bench.cli.commands.compare import compare_sides

    if json_lines and line:
        raise UserError("Give --json or --line, not both.")
    console = Console()
    with console.warnings_as_lines():
        printed, code = compare_sides(
            base,
            new,
            results,
            strict=gate,
            with_time=gate_time,
            factor=factor,
            form="json" if json_lines else "line" if line else "md",
        )
    console.say(printed)
    leave(code)


@app.command()
def save(
    suite: Annotated[Path, typer.Argument(help="a suite, or the folder of its results")],
    out: Annotated[
        Path | None, typer.Option(help="file; default: baselines/SUITE.json in --results")
    ] = None,
    results: Results = Path("results"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="the --set that the suite was run with; repeatable"),
    ] = None,
    limit: Annotated[
        str | None, typer.Option(help="the --limit that the suite was run with")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--filter", help="glob on case names, to keep only a part of the suite"),
    ] = None,
) -> None:
    """Write the figures of a finished suite to a file that is small enough to commit."""
    from bench.cli.commands.compare import save_baseline

    console = Console()
    with console.warnings_as_lines():
        file = save_baseline(suite, out, results, all_settings(settings, limit), pattern)
    console.say(f"Wrote {file} ({file.stat().st_size / 1e3:.0f} kB)")


@app.command()
def show(
    files: Annotated[
        list[Path] | None, typer.Argument(help="baselines; default: all in --results")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Print the figures of baselines, and what made them."""
    from bench.cli.commands.compare import baseline_text

    Console().say(baseline_text(files or [], results))
