"""Reports: a suite's records as the tables, curves and words of a paper."""

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from bench.atomic import write_text
from bench.case import Case
from bench.columns import COLUMNS, IOU
from bench.errors import UserError
from bench.lookup import pick, unknown
from bench.report.formats import FORMATS
from bench.report.group import EVERYTHING, Choice, slugs
from bench.report.markdown import markdown
from bench.report.table import Table
from bench.report.tables import KINDS, build_tables
from bench.sources import Prefer, Records, Source, find, read

PAGE, PICTURES = "html", ("png", "pdf")
USUAL_FORMATS = ("md", "latex", "csv")
ALL_FORMATS = (*FORMATS, PAGE, *PICTURES)


@dataclass(frozen=True)
class Report:
    """What is made of one suite's records, and what to know of it.

    folder: where its files go unless another is named.
    rows: of `bench.frame.load`, of the suite's cases.
    """

    folder: Path
    title: str
    tables: list[Table]
    notes: list[str]
    cases: tuple[Case, ...] = ()
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)


def report(
    targets: Sequence[Path],
    out: Path,
    settings: Sequence[str] = (),
    choice: Choice = EVERYTHING,
    prefer: Prefer | None = None,
) -> list[Report]:
    """Report on suites, or on folders of results; on every suite below `out` where none is named.

    Folders of one name are merged. What cannot be read is named in the notes and passed over.

    Args:
        settings: what --set and --limit lay over the suites.
        prefer: which record of a case counts where several do not agree.

    Raises:
        UserError: where a target is neither, holds no record, where records of a case do not
            agree, and for names of tables or columns that are unknown.
    """
    _check(choice)
    with warnings.catch_warnings(record=True) as caught, _without_collecting():
        warnings.simplefilter("always")
        sources = find(targets, out, settings)
        _check_kinds(choice, sources)
        found = [(source, read(source, prefer)) for source in sources]
        made = [_report(source, records, choice) for source, records in found if records]
    passed_over = list(dict.fromkeys(str(warning.message) for warning in caught))
    if not made:
        folders = [folder for source in sources for folder in source.folders]
        where = folders or list(targets) or [out]
        apart = sorted(f.name for w in where for f in w.parent.glob(f"{w.name}@*"))
        hint = f" There are {', '.join(apart)}: name a folder, or give --set." if apart else ""
        listed = ", ".join(map(str, where))
        broken = "".join(f"\n{text}" for text in passed_over)
        raise UserError(f"No results in {listed}. bench run SUITE makes some.{hint}{broken}")
    made[0].notes[:0] = passed_over
    return made


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Put off the garbage collector, which looks at every record again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check(choice: Choice) -> None:
    if choice.sort and not choice.sort.startswith(IOU) and choice.sort not in COLUMNS:
        raise UserError(unknown("column", choice.sort, [*COLUMNS, f"{IOU}CLASS"]))


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
    notes = [*records.notes, *(f"Nothing is there for a table {kind}." for kind in missing)]
    return Report(source.folders[0], source.title, tables, notes, source.resolved.cases, frame)


def write(reports: Sequence[Report], formats: Sequence[str], out: Path | None) -> list[Path]:
    """Write every report in every format, below `out` or each suite's own folder.

    Tables are a file each as md, latex, csv and json; html is one page; png and pdf are curves.
    Beside md and latex stand the paragraph on methods and, for latex, references.bib; below `out`
    there is also one of all suites.
    """
    for name in formats:
        if name not in ALL_FORMATS:
            raise UserError(unknown("format", name, ALL_FORMATS))
    files: list[Path] = []
    seen: list[str] = []
    for one in reports:
        again = seen.count(one.folder.name)  # of another place, and not merged
        seen.append(one.folder.name)
        name = f"{one.folder.name}-{again + 1}" if again else one.folder.name
        folder = one.folder / "report" if out is None else out / name
        files += _write_tables(one, folder, [name for name in formats if name in FORMATS])
        files += _write_methods(one, folder, formats)
        drawn = _write_curves(one, folder, formats)
        files += drawn
        if PAGE in formats:
            files.append(_write_page(one, folder, drawn))
    if out is not None and len(reports) > 1 and "latex" in formats:
        files.append(_write_bibliography(reports, out))
    return files


def _write_bibliography(reports: Sequence[Report], out: Path) -> Path:
    """Write what several suites cite into one file: BibTeX refuses an entry that is there twice."""
    from bench.report import citations

    cases = [case for one in reports for case in _scored_cases(one, _scored(one))]
    write_text(out / "references.bib", citations.bibliography(cases), sync=False)
    return out / "references.bib"


def _write_tables(one: Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    files = []
    for name in formats:
        suffix, render = pick("format", name, FORMATS)
        for table in one.tables:
            file = folder / f"{table.name}{suffix}"
            write_text(file, render(table), sync=False)
            files.append(file)
    return files


def _write_methods(one: Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    from bench.report import citations, methods

    scored = _scored(one)
    if not len(scored):
        return []
    cases = _scored_cases(one, scored)
    parts = methods.methods(cases, scored)
    texts = {}
    if "md" in formats:
        texts["methods.md"] = methods.as_markdown(parts)
    if "latex" in formats:
        texts["methods.tex"] = methods.as_latex(parts)
        texts["references.bib"] = citations.bibliography(cases)
    for name, content in texts.items():
        write_text(folder / name, content, sync=False)
    return [folder / name for name in texts]


def _scored(one: Report) -> pd.DataFrame:
    return one.rows[one.rows["evaluation"].notna()] if len(one.rows) else one.rows


def _scored_cases(one: Report, scored: pd.DataFrame) -> list[Case]:
    """Return a case of each model and recipe that has scores, whatever its seed."""
    done = set(scored["id"]) if len(scored) else set()
    there = [case for case in one.cases if case.id in done]
    names = ((case.dataset_name, case.model_name, case.recipe_name, case.label) for case in there)
    return list(dict(zip(names, there, strict=True)).values())


def _write_curves(one: Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draw the curves of each model, and of all together."""
    wanted = [name for name in PICTURES if name in formats]
    if not wanted or not len(_scored(one)):
        return []
    from bench.report import curves  # imports matplotlib
    from bench.report.histories import curves_of

    drawn, unread = curves_of(_scored(one))
    one.notes.extend(unread)
    figures = {
        f"curves-{name}": curves.model_figure(curve)
        for name, curve in zip(slugs([curve.label for curve in drawn]), drawn, strict=True)
    }
    if len(drawn) > 1:
        figures["curves"] = curves.overlay_figure(drawn)
    files = [folder / f"{name}.{suffix}" for name in figures for suffix in wanted]
    for file in files:
        curves.save(figures[file.stem], file)
    return files


def _write_page(one: Report, folder: Path, drawn: Sequence[Path]) -> Path:
    from bench.report import methods
    from bench.report.page import page

    scored = _scored(one)
    parts = methods.methods(_scored_cases(one, scored), scored) if len(scored) else []
    words = "".join(part for part in parts if isinstance(part, str))
    pngs = [file for file in drawn if file.suffix == ".png"]
    pictures = [("Curves", file) for file in pngs[-1:]]  # of all models, or of the only one
    file = folder / "report.html"
    write_text(file, page(one.title, one.tables, words, pictures, one.notes), sync=False)
    return file


def text(one: Report, tables: Sequence[Table] | None = None) -> str:
    """Write a report, or some tables of it, as Markdown to be printed."""
    parts = [markdown(table) for table in (one.tables if tables is None else tables)]
    return "\n".join([*parts, *one.notes])
