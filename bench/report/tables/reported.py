"""Published values next to ours, with footnotes if the two are not comparable."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import pandas as pd

from bench.report.protocol import changed_note, mark_changed
from bench.report.published import Beside, beside, remarks_of
from bench.report.rows import figure
from bench.report.table import Cell, Figure, Footnotes, Header, Table, Text
from bench.suite.columns import column
from bench.suite.suite import Suite

TITLES = ("Model", "Figure", "Reported", "Ours", "Difference", "Source")


def reported(
    suite: Suite,
    rows: pd.DataFrame,
    labels: Mapping[str, str],
    evaluations: list[str],
    changes: tuple[str, ...],
) -> list[Table]:
    """Make the table of a suite's reported values; no table if there are none.

    Args:
        rows: of all datasets, seeds merged, and of profiles.
        labels: the label of each case by its name, including cases without results.
        changes: the settings of --set and --limit.
    """
    found = [one for item in suite.reported for one in beside(item, rows, evaluations)]
    if not found:
        return []
    footnotes = Footnotes()
    return [
        Table(
            "reported",
            f"{suite.name}-reported",
            mark_changed("Reported values next to ours", changes),
            [Header(title) for title in TITLES],
            [_row(one, labels, footnotes) for one in found],
            notes=changed_note(changes),
            footnotes=footnotes.texts,
        )
    ]


def _row(one: Beside, labels: Mapping[str, str], footnotes: Footnotes) -> list[Cell]:
    shown = column(one.name)
    notes = remarks_of(one, footnotes)
    same = (label for name, label in labels.items() if fnmatchcase(name, one.item.case))
    label = str(one.row["label"]) if one.row is not None else next(same, one.item.case)
    ours = Figure(float("nan"), shown.digits) if one.row is None else figure(one.row, one.name)
    split = one.item.split if shown.of == "evaluation" else None
    return [
        Text(label),
        Text(f"{split or ''} {shown.title}".strip()),
        Figure(one.value * shown.scale, shown.digits, notes=notes),
        ours,
        Figure((one.ours - one.value) * shown.scale, shown.digits),
        Text(one.item.source),
    ]
