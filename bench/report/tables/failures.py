"""Cases that came to nothing, in tables."""

import pandas as pd

from bench.report.rows import listing
from bench.report.table import EMPTY, Cell, Footnotes, Header, Table, Text

MOST_OF_A_REASON = 200


def failed_rows(failed: pd.DataFrame, num_figures: int, footnotes: Footnotes) -> list[list[Cell]]:
    """Return a row without figures for each case, its reason a footnote."""
    rows: list[list[Cell]] = []
    for name, reason in _reasons(failed):
        rows.append([Text(name, (footnotes.add(reason),)), *[Text(EMPTY)] * num_figures])
    return rows


def failed_note(failed: pd.DataFrame) -> list[str]:
    """Name the cases in a note."""
    if not len(failed):
        return []
    return [f"Without figures, as the summary says why: {listing(pd.Series(_names(failed)))}."]


def only_failed(stem: str, title: str, failed: pd.DataFrame) -> Table:
    """Make the table of a group of which nothing finished."""
    rows: list[list[Cell]] = [[Text(name), Text(reason)] for name, reason in _reasons(failed)]
    headers = [Header("Model"), Header("Outcome")]
    return Table("summary", f"{stem}-summary", f"{title}: no case finished", headers, rows)


def _reasons(failed: pd.DataFrame) -> list[tuple[str, str]]:
    """Return name and reason of each case; the reason is as long as a table bears."""
    found = []
    for name, status, reason in zip(
        _names(failed), failed["status"], failed["reason"], strict=True
    ):
        short = reason if len(reason) <= MOST_OF_A_REASON else f"{reason[:MOST_OF_A_REASON]}…"
        found.append((name, f"{str(status).capitalize()}: {short}"))
    return found


def _names(failed: pd.DataFrame) -> list[str]:
    several = failed["recipe"].nunique() > 1
    recipes = ", " + failed["recipe"].astype(str) if several else ""
    return list(failed["label"].astype(str) + recipes + ", seed " + failed["seed"].astype(str))
