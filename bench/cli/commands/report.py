"""The command `report`."""

from collections.abc import Sequence
from pathlib import Path

from bench.cli.console import Console
from bench.records.sources import Prefer
from bench.report.group import Choice
from bench.report.report import report
from bench.report.write import write
from bench.text import plural


def report_targets(
    targets: Sequence[Path],
    results: Path,
    settings: Sequence[str],
    choice: Choice,
    prefer: Prefer | None,
    formats: Sequence[str],
    out: Path | None,
    console: Console,
) -> None:
    """Print the tables of suites or folders, and write their reports as files."""
    made = report(targets, results, settings, choice, prefer)
    files, unread = write(made, formats, out)
    for one in made:
        console.say(f"# {one.title}\n")
        console.report(one)
    for note in unread:
        console.say(note)
    if files:
        where = ", ".join(sorted({str(file.parent) for file in files}))
        console.say(f"Wrote {plural(len(files), 'file')} to {where}")
