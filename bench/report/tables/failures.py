"""Cases without scores, in tables."""

import pandas as pd

from bench.report.protocol import changed_note, mark_changed
from bench.report.rows import listing
from bench.report.table import EMPTY, Cell, Footnotes, Header, Table, Text

MOST_OF_A_REASON = 200  # characters


def failed_rows(failed: pd.DataFrame, num_figures: int, footnotes: Footnotes) -> list[list[Cell]]:
    """Return one row per case, without numbers; its reason is a footnote."""
    rows: list[list[Cell]] = []
    for name, reason in _reasons(failed):
        rows.append([Text(name, (footnotes.add(reason),)), *[Text(EMPTY)] * num_figures])
    return rows


def failed_note(failed: pd.DataFrame) -> list[str]:
    """Return a note that lists the cases, or nothing if there are none."""
    if not len(failed):
        return []
    return [f"No results (the summary gives the reasons): {listing(pd.Series(_names(failed)))}."]


def only_failed(stem: str, title: str, failed: pd.DataFrame, changes: tuple[str, ...]) -> Table:
    """Make the table of a group without any scores."""
    rows: list[list[Cell]] = [[Text(name), Text(reason)] for name, reason in _reasons(failed)]
    headers = [Header("Model"), Header("Outcome")]
    caption = mark_changed(f"{title}: no case has scores", changes)
    notes = changed_note(changes)
    return Table("summary", f"{stem}-summary", caption, headers, rows, notes=notes)


def _reasons(failed: pd.DataFrame) -> list[tuple[str, str]]:
    """Return name and reason of each case; long reasons are cut."""
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
