"""Tables that a suite defines: its own columns and order, with published values next to ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.report.group import Group, ordered
from bench.report.majority_class import majority_class_row
from bench.report.protocol import card_of, together
from bench.report.published import Beside, beside, matches, remarks_of
from bench.report.rows import (
    Row,
    Timing,
    conditions,
    each,
    figure,
    missing_times,
    names,
    on_one_machine,
)
from bench.report.significance import Ranks
from bench.report.table import EMPTY, Cell, Figure, Footnotes, Header, Rank, Table, Text
from bench.report.tables.failures import failed_note
from bench.suite.columns import column, of_case
from bench.suite.tables import Table as TableSpec

PAPER, OURS = "paper", "ours"
MOST_PAIRS = 4  # of columns, theirs next to ours; with more, theirs are a row above ours
Published = Mapping[tuple[int, str, str], Beside]  # by entry, column and evaluation


@dataclass(frozen=True)
class Asked:
    """A column that the suite asks for.

    is_paired: whether there are published values for it.
    """

    of: str
    evaluation: str
    header: Header
    is_paired: bool


def own(group: Group) -> list[Table]:
    """Make the tables that the suite defines; rows of other protocols get footnotes."""
    published = _published(group) if group.choice.reported else {}
    specs = group.suite.tables.items() if group.evaluations else ()
    made = [_table(group, key, spec, published) for key, spec in specs]
    return [table for table in made if table is not None]


def _cards(
    rows: pd.DataFrame, evaluations: Iterable[str], footnotes: Footnotes
) -> tuple[dict[str, dict[str, str]], dict[Any, tuple[int, ...]]]:
    """Return the card of each evaluation, and the footnotes of rows that differ from it."""
    cards: dict[str, dict[str, str]] = {}
    notes: dict[Any, tuple[int, ...]] = {}
    for evaluation in evaluations:
        of = rows[rows["evaluation"] == evaluation]
        if len(of):
            card, own_notes = card_of(of, footnotes)
            cards[evaluation], notes = dict(card), notes | own_notes
    return cards, notes


def _table(group: Group, key: str, spec: TableSpec, published: Published) -> Table | None:
    main = spec.evaluation or group.evaluations[0]
    rows = group.rows[group.rows["evaluation"] == main]
    rows = rows.loc[[matches(spec.cases, folders) for folders in rows["folders"]]]
    if not len(rows):
        return None
    rows = ordered(rows, group.choice.sort or spec.order)
    columns = _columns(spec, main, list(rows["entry"]), published)
    footnotes = Footnotes()
    here = group.rows[group.rows["entry"].isin(rows["entry"])]
    others = {(row["entry"], row["evaluation"]): (index, row) for index, row in each(here)}
    evaluations = dict.fromkeys([main, *(asked.evaluation for asked in columns)])
    cards, notes_of = _cards(here, evaluations, footnotes)
    ranks, explained = _ranks(group, here, columns)
    timed, elsewhere = on_one_machine(rows, footnotes)
    timing = Timing(rows, footnotes)
    stacked = sum(asked.is_paired for asked in columns) > MOST_PAIRS
    body: list[list[Cell]] = []
    rules: set[int] = set()
    for name, (index, row) in zip(names(rows, group.choice.by), each(timed), strict=True):
        theirs = [_theirs(published, row["entry"], asked, footnotes) for asked in columns]
        ours: list[Cell] = []
        for asked in columns:
            notes = timing.notes(row, asked.of)
            if asked.of in OF_A_MACHINE and index in elsewhere:
                notes = (elsewhere[index],)
            if asked.evaluation == main or of_case(asked.of):
                ours.append(figure(row, asked.of, ranks.get((index, asked.of), ""), notes))
            else:
                place, other = others.get((row["entry"], asked.evaluation), (None, {}))
                notes, rank = notes_of.get(place, ()), ranks.get((place, asked.of), "")
                ours.append(figure(other, asked.of, rank, notes) if other else Text(EMPTY))
        named = Text(name, notes_of[index])
        if stacked:
            rules.add(len(body))
            body += [[named, Text(PAPER), *theirs], [Text(""), Text(OURS), *ours]]
        else:
            pairs = zip(columns, theirs, ours, strict=True)
            cells = [[one, other] if asked.is_paired else [other] for asked, one, other in pairs]
            body.append([named, *(cell for pair in cells for cell in pair)])
    if _has_majority_row(rows, columns, main):
        rules.add(len(body))
        body.append(_majority_row(each(rows.iloc[:1])[0][1], columns, main, stacked))
    is_timed = any(asked.of in OF_A_MACHINE for asked in columns)
    return Table(
        key,
        f"{group.stem}-{key}",
        group.caption(_caption(group, key, spec)),
        _headers(group.header, columns, stacked),
        body,
        card=group.card(together(cards)),
        notes=[
            *conditions(rows),
            *(missing_times(rows) if is_timed else []),
            *explained,
            *failed_note(group.failed),
        ],
        footnotes=footnotes.texts,
        rules=frozenset(rules - {0}),
    )


def _ranks(group: Group, rows: pd.DataFrame, columns: list[Asked]) -> tuple[Ranks, list[str]]:
    """Rank the models in each column, within the evaluation of that column."""
    ranks: dict[tuple[Any, str], Rank] = {}
    explained: list[str] = []
    for evaluation in dict.fromkeys(asked.evaluation for asked in columns):
        names_here = [asked.of for asked in columns if asked.evaluation == evaluation]
        found, why = group.ranking.of(rows[rows["evaluation"] == evaluation], names_here)
        ranks |= found
        explained = explained or why
    return ranks, explained


def _has_majority_row(rows: pd.DataFrame, columns: list[Asked], main: str) -> bool:
    """Return whether all rows share one protocol and some column shows scores of it."""
    scored = any(asked.evaluation == main and not of_case(asked.of) for asked in columns)
    return scored and rows["protocol"].nunique() == 1


def _majority_row(row: Row, columns: list[Asked], main: str, stacked: bool) -> list[Cell]:
    first, *figures = majority_class_row(row, [asked.of for asked in columns])
    cells: list[Cell] = [first, *([Text("")] if stacked else [])]
    for asked, cell in zip(columns, figures, strict=True):
        shown = cell if asked.evaluation == main else Text(EMPTY)
        cells += [Text(EMPTY), shown] if asked.is_paired and not stacked else [shown]
    return cells


def _columns(spec: TableSpec, main: str, rows: list[int], published: Published) -> list[Asked]:
    several = len({one.evaluation or main for one in spec.columns}) > 1
    found = []
    for one in spec.columns:
        evaluation, title = one.evaluation or main, column(one.of).title
        if several and not of_case(one.of) and not one.group:
            title = f"{evaluation} {title}"
        paired = any((entry, one.of, evaluation) in published for entry in rows)
        header = Header(one.header or title, one.group)
        found.append(Asked(one.of, evaluation, header, paired))
    return found


def _caption(group: Group, key: str, spec: TableSpec) -> str:
    """Return the suite's caption, plus the model or recipe if tables are made per one."""
    if not spec.caption:
        return f"{key}: {group.title}{f', {group.recipe}' if group.recipe else ''}"
    title = group.title if group.choice.by == "model" else group.recipe
    return f"{spec.caption}: {title}" if title else spec.caption


def _headers(first: str, columns: list[Asked], stacked: bool) -> list[Header]:
    if stacked:
        return [Header(first), Header(""), *(asked.header for asked in columns)]
    headers = [Header(first)]
    for asked in columns:
        title = asked.header.whole
        pair = [Header(PAPER, title), Header(OURS, title)]
        headers += pair if asked.is_paired else [asked.header]
    return headers


def _theirs(published: Published, entry: int, asked: Asked, footnotes: Footnotes) -> Cell:
    one = published.get((entry, asked.of, asked.evaluation))
    if one is None:
        return Text(EMPTY)
    shown = column(one.name)
    return Figure(one.value * shown.scale, shown.digits, notes=remarks_of(one, footnotes))


def _published(group: Group) -> Published:
    """Return the published value for each of our cells; if there are several, the first.

    Values published on the same split go before values of another split.
    """
    found: dict[tuple[int, str, str], Beside] = {}
    all_items = [b for i in group.suite.reported for b in beside(i, group.rows, group.evaluations)]
    for one in sorted(all_items, key=lambda one: not one.is_exact):
        if one.row is None:
            continue
        for evaluation in group.evaluations:
            same = group.suite.scored[evaluation].split == one.row["split"]
            if same or of_case(one.name):
                found.setdefault((one.row["entry"], one.name, evaluation), one)
    return found
