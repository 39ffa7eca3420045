"""Scores on training and validation data, as in table 2 of enet-r2unet-pspnet."""

from typing import Any

import pandas as pd

from bench.report.group import Group
from bench.report.protocol import card_of, together
from bench.report.rows import Row, conditions, each, figure, names
from bench.report.table import EMPTY, Cell, Footnotes, Header, Table, Text
from bench.report.tables.failures import failed_note
from bench.suite.columns import COLUMNS
from bench.text import enumerated

SHOWN = ("dice", "f1", "miou", "pixel_accuracy", "sensitivity", "loss")


def metrics(group: Group) -> list[Table]:
    """Make one table per set of models with equal protocols."""
    suite = group.suite
    training = [k for k in group.evaluations if suite.scored[k].split == suite.splits.train]
    order = [*training, *(k for k in group.evaluations if k not in training)]
    if not order:
        return []
    rows = pd.concat([group.of(key) for key in order])
    if group.choice.by == "model":
        return [_table(group, order, rows)]
    scored = rows["evaluation"] + rows["protocol"]
    protocols = scored.groupby(rows["entry"], sort=False).transform("\n".join)
    return [_table(group, order, here) for _, here in rows.groupby(protocols, sort=False)]


def _table(group: Group, order: list[str], rows: pd.DataFrame) -> Table:
    footnotes = Footnotes()
    cards: dict[str, dict[str, str]] = {}
    own: dict[Any, tuple[int, ...]] = {}
    ranks: dict[tuple[Any, str], Any] = {}
    explained: list[str] = []
    for key in order:
        of_key = rows[rows["evaluation"] == key]
        if len(of_key):
            card, notes = card_of(of_key, footnotes)
            found, explained = group.ranking.of(of_key, SHOWN)
            cards[key], own, ranks = dict(card), own | notes, {**ranks, **found}
    named = names(rows, group.choice.by)
    body: list[list[Cell]] = []
    models: dict[int, dict[str, tuple[Any, Row]]] = {}
    for index, row in each(rows):
        models.setdefault(row["entry"], {})[row["evaluation"]] = index, row
    for model in models.values():
        places = [index for index, _ in model.values()]
        marked = dict.fromkeys(note for index in places for note in own[index])
        cells: list[Cell] = [Text(named[places[0]], tuple(marked))]
        for key in order:
            index, row = model.get(key, (None, {}))
            cells += [
                figure(row, c, ranks.get((index, c), "")) if row else Text(EMPTY) for c in SHOWN
            ]
        body.append(cells)
    of = "of" if group.choice.by == "model" else "on"
    recipe = f", {group.recipe}" if group.recipe else ""
    headers = [Header(group.header)]
    headers += [Header(COLUMNS[column].title, key) for key in order for column in SHOWN]
    return Table(
        "metrics",
        f"{group.stem}-metrics",
        group.caption(f"Scores {of} {group.title}{recipe}: {enumerated(order)}"),
        headers,
        body,
        card=group.card(together(cards)),
        notes=[*conditions(rows), *explained, *failed_note(group.failed)],
        footnotes=footnotes.texts,
    )
