"""The one place that prints: lines, tables, lines of JSON."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.console

    from bench.report.report import Report
    from bench.report.table import Table


class Console:
    """Where a command prints: lines for people, or JSON on stdout and people's lines on stderr."""

    def __init__(self, json_lines: bool = False) -> None:
        self.json_lines = json_lines

    @cached_property
    def rich(self) -> "rich.console.Console":
        """The console that draws progress and tables."""
        from rich.console import Console as RichConsole

        return RichConsole(stderr=self.json_lines, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether lines for people go to a terminal, whatever FORCE_COLOR says."""
        return (sys.stderr if self.json_lines else sys.stdout).isatty()

    def say(self, text: str) -> None:
        """Print a text as it is; on a terminal, above a progress bar if there is one."""
        if self.is_terminal:
            self.rich.print(text, markup=False, emoji=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr if self.json_lines else sys.stdout, flush=True)

    def warn(self, text: str) -> None:
        """Print a text to stderr."""
        print(text, file=sys.stderr)

    def json(self, line: dict[str, Any]) -> None:
        """Print one line of JSON to stdout."""
        print(json.dumps(line, allow_nan=False), flush=True)

    def report(self, report: "Report", tables: "Sequence[Table] | None" = None) -> None:
        """Print tables of a report, or all: drawn on a terminal, as Markdown elsewhere."""
        if not self.is_terminal:
            from bench.report.report import text

            self.say(text(report, tables))
            return
        from bench.cli.terminal_table import draw
        from bench.report.report import notes_beside

        shown = report.tables if tables is None else tables
        for table in shown:
            draw(table, self.rich)
        for note in notes_beside(report, shown):
            self.say(note)

    @contextmanager
    def warnings_as_lines(self) -> Iterator[None]:
        """Print each warning of the body once, as a line on stderr."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            finally:
                for text in dict.fromkeys(str(warning.message) for warning in caught):
                    self.warn(text)
