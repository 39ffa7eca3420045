"""The IoU per class, as in table 1 of fcn-idd; if there are many classes, they are the rows."""

import pandas as pd

from bench.report.group import Group
from bench.report.protocol import card_of
from bench.report.rows import conditions, each, figure, names
from bench.report.table import Cell, Footnotes, Header, Table, Text
from bench.report.tables.failures import failed_note
from bench.suite.columns import IOU

MOST_COLUMNS = 8  # classes; models if classes are rows


def per_class(group: Group) -> list[Table]:
    """Make one table per protocol of each reported evaluation, or several if models are many."""
    tables = []
    for evaluation in group.reported:
        name = group.name("per-class", evaluation)
        for data, rows in group.protocols(evaluation):
            classes = list(dict.fromkeys(one for of in rows["class_names"] for one in of))
            if len(classes) <= MOST_COLUMNS:
                tables.append(_classes_as_columns(group, name, data, rows, classes))
            else:
                tables += _classes_as_rows(group, name, data, rows, classes)
    return tables


def _classes_as_columns(
    group: Group, name: str, data: str, rows: pd.DataFrame, classes: list[str]
) -> Table:
    columns = [*(f"{IOU}{name}" for name in classes), "miou"]
    footnotes = Footnotes()
    card, own = card_of(rows, footnotes)
    ranks, explained = group.ranking.of(rows, columns)
    body: list[list[Cell]] = [
        [Text(label, own[index]), *(figure(row, c, ranks.get((index, c), "")) for c in columns)]
        for label, (index, row) in zip(names(rows, group.choice.by), each(rows), strict=True)
    ]
    return Table(
        "per_class",
        name,
        group.caption(f"IoU (%) per class: {data}"),
        [Header(group.header), *map(Header, classes), Header("mean")],
        body,
        card=group.card(card),
        notes=[*conditions(rows), *explained, *failed_note(group.failed)],
        footnotes=footnotes.texts,
    )


def _classes_as_rows(
    group: Group, name: str, data: str, rows: pd.DataFrame, classes: list[str]
) -> list[Table]:
    columns = [*(f"{IOU}{name}" for name in classes), "miou"]
    ranks, explained = group.ranking.of(rows, columns)
    named = names(rows, group.choice.by)
    num_parts = -(-len(rows) // MOST_COLUMNS)
    tables = []
    for part in range(num_parts):
        here = rows.iloc[part * MOST_COLUMNS : (part + 1) * MOST_COLUMNS]
        footnotes = Footnotes()
        card, own = card_of(here, footnotes)
        marked = [f"{named[i]}: {footnotes.texts[n]}" for i in here.index for n in own[i]]
        body: list[list[Cell]] = [
            [Text(title), *(figure(row, c, ranks.get((i, c), "")) for i, row in each(here))]
            for title, c in zip([*classes, "mean"], columns, strict=True)
        ]
        of_parts = f" (models, part {part + 1} of {num_parts})" if num_parts > 1 else ""
        tables.append(
            Table(
                "per_class",
                name,
                group.caption(f"IoU (%) per class: {data}{of_parts}"),
                [Header("Class"), *(Header(named[index]) for index in here.index)],
                body,
                card=group.card(card),
                notes=[*marked, *conditions(here), *explained, *failed_note(group.failed)],
                rules=frozenset({len(classes)}),
            )
        )
    return tables
