"""Reports: a suite's records as the tables of a paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.atomic import write_text
from bench.case import expand
from bench.errors import Faults, UserError
from bench.frame import load, load_profiles
from bench.lookup import pick
from bench.record import APART, Resolved, read_resolved, results_folder
from bench.report.formats import FORMATS, Table, markdown
from bench.report.tables import build_tables
from bench.suite_file import load as load_suite

MOST_NAMES = 8  # of cases in a note


@dataclass(frozen=True)
class Report:
    """The tables of one suite's records, and what to know of them."""

    folder: Path
    title: str
    tables: list[Table]
    notes: list[str]


def report(targets: Sequence[Path], out: Path, settings: Sequence[str] = ()) -> list[Report]:
    """Report on suites, or on folders of results; on every suite below `out` where none is named.

    Args:
        settings: what --set and --limit lay over the suites.

    Raises:
        UserError: where a target is neither, or holds no record.
    """
    found = [one for target in targets or [out] for one in _find(target, out, settings)]
    reports = [_report(folder, resolved) for folder, resolved in found]
    made = [one for one in reports if one is not None]
    if not made:
        where = [folder for folder, _ in found] or list(targets) or [out]
        apart = sorted(f.name for w in where for f in w.parent.glob(f"{w.name}@*"))
        hint = f" There are {', '.join(apart)}: name a folder, or give --set." if apart else ""
        listed = ", ".join(map(str, where))
        raise UserError(f"No results in {listed}. bench run SUITE makes some.{hint}")
    return made


def _find(target: Path, out: Path, settings: Sequence[str]) -> Iterable[tuple[Path, Resolved]]:
    if target.suffix in (".yaml", ".yml"):
        file = load_suite(target, settings)
        try:
            cases = expand(file.suite)
        except Faults as error:
            raise file.error(error.faults) from error
        folder = results_folder(out, file.suite, settings)
        yield folder, Resolved(suite=file.suite, cases=tuple(cases))
        return
    if settings:
        raise UserError("--set and --limit go with a suite file, not with a folder of results.")
    if not target.is_dir() and target != out:
        raise UserError(f"{target} is neither a suite (.yaml) nor a folder with results.")
    for file_path in sorted(target.rglob("suite.json")):
        if file_path.relative_to(target).parts[0] in APART:
            continue
        resolved = read_resolved(file_path.parent)
        assert resolved is not None
        yield file_path.parent, resolved


def _report(folder: Path, resolved: Resolved) -> Report | None:
    """Report on one suite's folder; None where it holds no record."""
    if not folder.is_dir():
        return None
    frame, profiles = load(folder), load_profiles(folder)
    if frame.empty and profiles.empty:
        return None
    ids = [case.id for case in resolved.cases]
    here, profiled = _in_order(frame, ids), _in_order(profiles, ids)
    notes = []
    waiting = [case.name for case in resolved.cases if case.id not in set(here["id"])]
    if waiting and len(here):
        some = ", ".join(waiting[:MOST_NAMES]) + (", …" if len(waiting) > MOST_NAMES else "")
        notes.append(f"{len(waiting)} of {len(ids)} cases have no record: {some}.")
    others = frame.loc[~frame["id"].isin(ids), "id"].nunique()
    if others:
        notes.append(f"{others} other records lie in {folder}, of this suite as it was.")
    tables = build_tables(resolved.suite, here, profiled) if len(here) + len(profiled) else []
    return Report(folder, folder.name, tables, notes)


def _in_order(frame: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Choose the rows of some cases, in their order."""
    here = frame[frame["id"].isin(ids)]
    return here.sort_values("id", key=lambda column: column.map(ids.index), kind="stable")


def write(reports: Iterable[Report], formats: Sequence[str], out: Path | None) -> list[Path]:
    """Write every table in every format, below `out` or each suite's own folder."""
    files = []
    for one in reports:
        folder = one.folder / "report" if out is None else out / one.folder.name
        for name in formats:
            suffix, render = pick("format", name, FORMATS)
            for table in one.tables:
                file = folder / f"{table.name}{suffix}"
                write_text(file, render(table), sync=False)
                files.append(file)
    return files


def text(one: Report, tables: Sequence[Table] | None = None) -> str:
    """Write a report, or some tables of it, as Markdown to be printed."""
    parts = [markdown(table) for table in (one.tables if tables is None else tables)]
    return "\n".join([*parts, *one.notes])
