"""Reports: a suite's records as the tables of a paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.case import expand
from bench.errors import Faults, UserError
from bench.frame import load
from bench.lookup import pick
from bench.record import Resolved, read_resolved, results_folder, write_text
from bench.report.formats import FORMATS, Table, markdown
from bench.report.tables import build_tables
from bench.suite import load as load_suite

APART = ("published", "baselines")  # reported only where they are named


@dataclass(frozen=True)
class Report:
    """The tables of one suite's records, and what to know of them."""

    folder: Path
    title: str
    tables: list[Table]
    notes: list[str]


def report(targets: Sequence[Path], out: Path) -> list[Report]:
    """Report on suites, or on folders of results; on every suite below `out` where none is named.

    Raises:
        UserError: where a target is neither, or holds no record.
    """
    if not targets:
        targets = [f for f in sorted(out.glob("*")) if f.is_dir() and f.name not in APART]
        targets = [folder for folder in targets if (folder / "suite.json").is_file()]
        if not targets:
            raise UserError(f"No results in {out}. bench run SUITE makes some.")
    return [_report(folder, resolved) for t in targets for folder, resolved in _find(t, out)]


def _find(target: Path, out: Path) -> Iterable[tuple[Path, Resolved]]:
    if target.suffix in (".yaml", ".yml"):
        file = load_suite(target)
        try:
            cases = expand(file.suite)
        except Faults as error:
            raise file.error(error.faults) from error
        yield results_folder(out, file.suite), Resolved(suite=file.suite, cases=tuple(cases))
        return
    saved = sorted(target.rglob("suite.json"))
    if not saved:
        raise UserError(f"{target} is neither a suite (.yaml) nor a folder with results.")
    for file_path in saved:
        resolved = read_resolved(file_path.parent)
        assert resolved is not None
        yield file_path.parent, resolved


def _report(folder: Path, resolved: Resolved) -> Report:
    frame = load(folder)
    ids = [case.id for case in resolved.cases]
    here = frame[frame["id"].isin(ids)] if "id" in frame else frame
    if here.empty:
        raise UserError(f"{folder} holds no record of suite {resolved.suite.name!r}.")
    here = here.sort_values("id", key=lambda column: column.map(ids.index), kind="stable")
    notes = []
    waiting = [case.name for case in resolved.cases if case.id not in set(here["id"])]
    if waiting:
        notes.append(f"{len(waiting)} of {len(ids)} cases have no record: {', '.join(waiting)}.")
    others = frame.loc[~frame["id"].isin(ids), "id"].nunique()
    if others:
        notes.append(f"{others} other records lie in {folder}, of this suite as it was.")
    return Report(folder, resolved.suite.name, build_tables(resolved.suite, here), notes)


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
