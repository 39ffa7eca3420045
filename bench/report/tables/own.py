"""Tables that a suite defines: its columns, in its order, published figures beside ours."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from bench.columns import COLUMNS, column
from bench.report.group import Group, ordered
from bench.report.protocol import card_of
from bench.report.published import beside
from bench.report.rows import (
    OF_A_MACHINE,
    conditions,
    data_bound,
    each,
    figure,
    missing_times,
    names,
    on_one_machine,
)
from bench.report.table import EMPTY, Cell, Figure, Footnotes, Header, Table, Text
from bench.report.tables.failures import failed_note
from bench.suite import Table as TableSpec

PAPER, OURS = "paper", "ours"
Published = Mapping[tuple[tuple[str, ...], str, str], Figure]  # folders, column, evaluation


def own(group: Group) -> list[Table]:
    """Make each table of the suite's own; rows of several protocols share it, with footnotes."""
    made = [_table(group, key, spec) for key, spec in group.suite.tables.items()]
    return [table for table in made if table is not None]


def _table(group: Group, key: str, spec: TableSpec) -> Table | None:
    if not group.evaluations:
        return None
    main = spec.evaluation or group.evaluations[0]
    rows = group.rows[group.rows["evaluation"] == main]
    rows = rows[[_matches(spec.cases, folders) for folders in rows["folders"]]]
    if not len(rows):
        return None
    rows = ordered(rows, group.choice.sort or spec.order)
    footnotes = Footnotes()
    card, notes_of = card_of(rows, footnotes)
    published = _published(group, footnotes) if group.choice.reported else {}
    asked = [(one.of, one.evaluation or main, one.header) for one in spec.columns]
    paired = [
        any((folders, of, evaluation) in published for folders in rows["folders"])
        for of, evaluation, _ in asked
    ]
    ranks, explained = group.marks.of(rows, [of for of, evaluation, _ in asked])
    timed, elsewhere = on_one_machine(rows, footnotes)
    everything = {(row["folders"], row["evaluation"]): row for _, row in each(group.rows)}
    body: list[list[Cell]] = []
    for name, (index, row) in zip(names(rows, group.choice.by), each(timed), strict=True):
        cells: list[Cell] = [Text(name, notes_of[index])]
        for (of, evaluation, _), is_paired in zip(asked, paired, strict=True):
            if is_paired:
                theirs = published.get((row["folders"], of, evaluation))
                cells.append(theirs or Text(EMPTY))
            notes = data_bound(row, of, footnotes)
            if of in OF_A_MACHINE and index in elsewhere:
                notes = (elsewhere[index],)
            if evaluation == main or column(of).of == "case":
                cells.append(figure(row, of, ranks.get((index, of), ""), notes))
            else:
                other = everything.get((row["folders"], evaluation))
                cells.append(Text(EMPTY) if other is None else figure(other, of))
        body.append(cells)
    headers = [Header("Model")]
    for (of, evaluation, header), is_paired in zip(asked, paired, strict=True):
        several = len({e for _, e, _ in asked}) > 1 and column(of).of == "evaluation"
        title = header or (f"{evaluation} {column(of).title}" if several else column(of).title)
        pair = [Header(PAPER, title), Header(OURS, title)]
        headers += pair if is_paired else [Header(title)]
    caption = spec.caption or f"{key}: {group.title}"
    timed_columns = any(of in OF_A_MACHINE for of, _, _ in asked)
    return Table(
        key,
        f"{group.stem}-{key}",
        group.caption(caption),
        headers,
        body,
        card=card,
        notes=[
            *conditions(rows),
            *(missing_times(rows) if timed_columns else []),
            *explained,
            *failed_note(group.failed),
        ],
        footnotes=footnotes.texts,
    )


def _matches(pattern: str, folders: tuple[str, ...]) -> bool:
    return any(fnmatchcase(Path(f).name.rpartition("__")[0], pattern) for f in folders)


def _published(group: Group, footnotes: Footnotes) -> Published:
    """Return published figures by the rows that they are of; of several the first."""
    found: dict[tuple[tuple[str, ...], str, str], Figure] = {}
    for item in group.suite.reported:
        for one in beside(item, group.rows, group.evaluations):
            if one.row is None:
                continue
            shown = column(one.name)
            notes = tuple(footnotes.add(f"Not comparable: {text}.") for text in one.remarks)
            cell = Figure(one.value * shown.scale, shown.digits, notes=notes)
            evaluations = group.evaluations if shown.of == "case" else [str(one.row["evaluation"])]
            for evaluation in evaluations:
                found.setdefault((one.row["folders"], one.name, evaluation), cell)
    return found


assert "suite" not in COLUMNS
