"""What was found, as a page of Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from benchmarks.gpu.rows import Row


@dataclass(frozen=True)
class Finding:
    """What a stage found.

    status: done, ended (its time was over), failed or skipped; reason: why, unless it is done.
    """

    name: str
    title: str
    status: str
    seconds: float
    reason: str | None
    rows: list[Row]


def page(found: Sequence[Finding], started: str, minutes: float) -> str:
    """Return the page: one section and table per stage."""
    machine = next((one.rows[0] for one in found if one.name == "machine" and one.rows), {})
    where = f" on {machine['device']}, torch {machine['torch']}" if machine else ""
    head = [
        "# What a GPU gives",
        "",
        f"Measured by `python -m benchmarks.gpu --minutes {minutes:g}`{where}, {started}. "
        "Alternatives run in turn; a ratio is the median over consecutive runs with its 95 % "
        "bootstrap interval. MFU: achieved operations as a share of what a large matrix product "
        "reaches on this machine in the same precision.",
    ]
    return "\n".join([*head, *(line for one in found for line in _section(one))]) + "\n"


def _section(finding: Finding) -> list[str]:
    said = f"{finding.status}: {finding.reason}" if finding.reason else finding.status
    lines = ["", f"## {finding.title}", "", f"{finding.seconds:.0f} s, {said}."]
    rows = _shortened(finding.rows) if finding.name in ("tests", "selftest") else finding.rows
    if rows:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        table = tabulate(cells, columns, tablefmt="github", disable_numparse=True)
        lines += ["", table]
    return lines


def _shortened(rows: Sequence[Row]) -> list[Row]:
    """Count the outcomes, and list what failed."""
    outcomes = [row["outcome"] for row in rows]
    counted: Row = {name: outcomes.count(name) for name in dict.fromkeys(outcomes)}
    failed = [row for row in rows if row["outcome"] in ("failed", "error")]
    return [counted, *failed] if counted else []


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
