"""The protocols of all evaluations, side by side."""

import pandas as pd

from bench.report.group import Group
from bench.report.protocol import changed_note, terms
from bench.report.rows import each
from bench.report.table import EMPTY, Cell, Header, Table, Text


def protocol(group: Group) -> list[Table]:
    """Make a table with one column per protocol of each evaluation."""
    columns: list[tuple[str, dict[str, str]]] = []
    for evaluation in group.evaluations:
        for _, rows in group.of(evaluation).groupby("protocol", sort=False):
            described = terms(each(rows.iloc[:1])[0][1])
            described["models"] = f"{rows['label'].nunique()}"
            described["seeds"] = ", ".join(map(str, sorted(set(rows["num_seeds"]))))
            described["precision"] = _listed(rows["trained_in"])
            described["measured on"] = _listed(rows["machine"])
            columns.append((evaluation, described))
    if not columns:
        return []
    body: list[list[Cell]] = [
        [Text(term), *(Text(described.get(term, EMPTY)) for _, described in columns)]
        for term in columns[0][1]
    ]
    caption = group.caption(f"Evaluation protocols: {group.title}")
    headers = [Header(""), *(Header(evaluation) for evaluation, _ in columns)]
    notes = changed_note(group.changes)
    return [Table("protocol", f"{group.stem}-protocol", caption, headers, body, notes=notes)]


def _listed(values: "pd.Series[str]") -> str:
    return ", ".join(dict.fromkeys(map(str, values.dropna())))
