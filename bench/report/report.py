"""Make reports: the tables of a suite, from its records."""

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import pandas as pd

from bench.errors import UserError
from bench.lookup import unknown
from bench.records.sources import Prefer, Records, Source, find, read
from bench.report.formats.markdown import markdown
from bench.report.group import EVERYTHING, Choice
from bench.report.rows import By
from bench.report.table import Table
from bench.report.tables.tables import KINDS, build_tables
from bench.suite.case import Case
from bench.suite.columns import COLUMNS, IOU
from bench.text import plural


@dataclass(frozen=True)
class Report:
    """The tables made from one suite's records, with notes.

    folder: the default folder for its files.
    rows: of `bench.load`, for the suite's cases.
    """

    folder: Path
    title: str
    tables: list[Table]
    notes: list[str]
    cases: tuple[Case, ...] = ()
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __str__(self) -> str:
        """Return the report as Markdown."""
        return text(self)


def report(
    targets: Sequence[Path],
    out: Path,
    settings: Sequence[str] = (),
    choice: Choice = EVERYTHING,
    prefer: Prefer | None = None,
) -> list[Report]:
    """Make reports on suites or folders of results, or on every suite in `out` if none is given.

    Folders with the same name are merged. Files that cannot be read are skipped and listed in the
    notes.

    Args:
        settings: of --set and --limit; they override the suites.
        prefer: which record of a case to use if several disagree.

    Raises:
        UserError: if a target is neither a suite nor a folder, if there are no records, if records
            of a case disagree, or if a table or column is unknown.
    """
    _check(choice)
    if prefer not in (None, *get_args(Prefer)):
        raise UserError(unknown("preference", str(prefer), get_args(Prefer)))
    with warnings.catch_warnings(record=True) as caught, _without_collecting():
        warnings.simplefilter("always")
        sources = find(targets, out, settings)
        _check_kinds(choice, sources)
        found = [(source, read(source, prefer)) for source in sources]
        _check_class(choice, [records.frame for _, records in found if records])
        made = [_report(source, records, choice) for source, records in found if records]
    skipped = list(dict.fromkeys(str(warning.message) for warning in caught))
    if not made:
        folders = [folder for source in sources for folder in source.folders]
        where = folders or list(targets) or [out]
        apart = sorted(f.name for w in where for f in w.parent.glob(f"{w.name}@*"))
        hint = ""
        if apart:
            hint = f" Runs with changed settings: {', '.join(apart)}; name the folder or add --set."
        begun = sum(len([*w.glob("*/last.pt")]) for w in where)
        if begun:
            hint = f" {plural(begun, 'case')} was interrupted; the same bench run continues.{hint}"
        listed = ", ".join(map(str, where))
        broken = "".join(f"\n{text}" for text in skipped)
        raise UserError(f"No results in {listed}. Start with bench run SUITE.{hint}{broken}")
    made[0].notes[:0] = skipped
    return made


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Turn off the garbage collector, which would scan all records again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check(choice: Choice) -> None:
    if choice.by not in get_args(By):
        raise UserError(unknown("way to group", str(choice.by), get_args(By)))
    if choice.sort and not choice.sort.startswith(IOU) and choice.sort not in COLUMNS:
        raise UserError(unknown("column", choice.sort, [*COLUMNS, f"{IOU}CLASS"]))


def _check_class(choice: Choice, frames: Sequence[pd.DataFrame]) -> None:
    """Check that the class whose IoU sorts the rows is a class of some records."""
    known = {str(n) for frame in frames for n in frame if str(n).startswith(IOU)}
    if known and choice.sort and choice.sort.startswith(IOU) and choice.sort not in known:
        raise UserError(unknown("column", choice.sort, known))


def _check_kinds(choice: Choice, sources: Sequence[Source]) -> None:
    known = [*KINDS, *(key for source in sources for key in source.resolved.suite.tables)]
    for kind in choice.kinds or ():
        if kind not in known:
            raise UserError(unknown("table", kind, known))


def _report(source: Source, records: Records, choice: Choice) -> Report:
    suite, frame, profiles = source.resolved.suite, records.frame, records.profiles
    tables = []
    if len(frame) + len(profiles):
        settings = source.resolved.settings
        tables = build_tables(suite, frame, profiles, settings, choice)
    places = [i for i, table in enumerate(tables) if table.kind == "summary"]
    for place in places[:1]:
        tables[place] = replace(tables[place], notes=[*tables[place].notes, *records.notes])
    made = {table.kind for table in tables}
    missing = [kind for kind in choice.kinds or () if kind not in made]
    notes = [*records.notes, *(f"No data for table {kind}." for kind in missing)]
    return Report(source.folders[0], source.title, tables, notes, source.resolved.cases, frame)


def text(one: Report, tables: Sequence[Table] | None = None) -> str:
    """Return a report, or some of its tables, as Markdown for printing."""
    shown = one.tables if tables is None else tables
    return "\n".join([*map(markdown, shown), *notes_beside(one, shown)])


def notes_beside(one: Report, tables: Sequence[Table]) -> list[str]:
    """Return the notes of a report that none of these tables has."""
    said = {note for table in tables for note in table.notes}
    return [note for note in one.notes if note not in said]
