"""The summary: scores, cost, failed cases and the majority-class row."""

import pandas as pd

from bench.report.group import Group
from bench.report.majority_class import majority_class_row
from bench.report.protocol import card_of
from bench.report.rows import (
    Timing,
    conditions,
    each,
    figure,
    missing_times,
    names,
    on_one_machine,
)
from bench.report.table import Cell, Footnotes, Header, Table, Text
from bench.report.tables.failures import failed_rows
from bench.suite.columns import COLUMNS

COLUMNS_SHOWN = ("miou", "pixel_accuracy", "num_params", "model_mb", "epoch_s")


def summary(group: Group) -> list[Table]:
    """Make one table per protocol of each reported evaluation."""
    tables = []
    for evaluation in group.reported:
        for number, (data, rows) in enumerate(group.protocols(evaluation)):
            first = evaluation == group.reported[0] and number == 0
            failed = group.failed if first else group.failed[:0]
            tables.append(_table(group, evaluation, data, rows, failed))
    return tables


def _table(
    group: Group, evaluation: str, data: str, rows: pd.DataFrame, failed: pd.DataFrame
) -> Table:
    footnotes = Footnotes()
    card, own = card_of(rows, footnotes)
    ranks, explained = group.ranking.of(rows, COLUMNS_SHOWN)
    timed, elsewhere = on_one_machine(rows, footnotes)
    timing = Timing(rows, footnotes)
    body: list[list[Cell]] = []
    for name, (index, row) in zip(names(rows, group.choice.by), each(timed), strict=True):
        cells: list[Cell] = [Text(name, own[index])]
        for column in COLUMNS_SHOWN:
            notes = timing.notes(row, column)
            if column == "epoch_s" and index in elsewhere:
                notes = (elsewhere[index],)
            cells.append(figure(row, column, ranks.get((index, column), ""), notes))
        body.append(cells)
    body += failed_rows(failed, len(COLUMNS_SHOWN), footnotes)
    rules = set()
    if group.choice.by != "model":
        rules.add(len(body))
        body.append(majority_class_row(each(rows.iloc[:1])[0][1], COLUMNS_SHOWN))
    return Table(
        "summary",
        group.name("summary", evaluation),
        group.caption(data),
        [Header(group.header), *(Header(COLUMNS[c].title) for c in COLUMNS_SHOWN)],
        body,
        card=group.card(card),
        notes=[*conditions(rows), *missing_times(rows), *explained],
        footnotes=footnotes.texts,
        rules=frozenset(rules),
    )
