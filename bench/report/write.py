"""Write a report to files: tables, methods paragraph, curves, web page."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.errors import UserError
from bench.lookup import pick, unknown
from bench.machine.files import write_text
from bench.report.formats.formats import FORMATS
from bench.report.group import slugs
from bench.report.report import Report, notes_beside
from bench.suite.case import Case

PAGE, PICTURES = "html", ("png", "pdf")
USUAL_FORMATS = ("md", "latex", "csv")
ALL_FORMATS = (*FORMATS, PAGE, *PICTURES)


class Written(NamedTuple):
    """The files written, and notes on what could not be read."""

    files: list[Path]
    notes: list[str]


def write(reports: Sequence[Report], formats: Sequence[str], out: Path | None) -> Written:
    """Write every report in every format, to a folder below `out` or to the suite's own folder.

    md, latex, csv and json make one file per table; html makes one page; png and pdf make curves.
    md and latex also write the methods paragraph, and latex a references.bib. With several suites
    and latex, `out` also gets one references.bib for all of them.

    Raises:
        UserError: for an unknown format, or if a file cannot be written.
    """
    for name in formats:
        if name not in ALL_FORMATS:
            raise UserError(unknown("format", name, ALL_FORMATS))
    files: list[Path] = []
    notes: list[str] = []
    seen: list[str] = []
    for one in reports:
        again = seen.count(one.folder.name)  # same name, other place, not merged
        seen.append(one.folder.name)
        name = f"{one.folder.name}-{again + 1}" if again else one.folder.name
        folder = one.folder / "report" if out is None else out / name
        files += _write_tables(one, folder, [name for name in formats if name in FORMATS])
        files += _write_methods(one, folder, formats)
        drawn, unread = _write_curves(one, folder, formats)
        files, notes = files + drawn, notes + unread
        if PAGE in formats:
            files.append(_write_page(one, folder, drawn, unread))
    if out is not None and len(reports) > 1 and "latex" in formats:
        files.append(_write_bibliography(reports, out))
    return Written(files, notes)


def _write_bibliography(reports: Sequence[Report], out: Path) -> Path:
    """Write one bibliography for several suites, because BibTeX rejects repeated entries."""
    from bench.report.paper import citations

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
    from bench.report.paper import citations, methods

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
    """Return one case per model and recipe with scores, of any seed."""
    done = set(zip(scored["id"], scored["case"], strict=True)) if len(scored) else set()
    there = [case for case in one.cases if (case.id, case.name) in done]
    names = ((case.dataset_name, case.model_name, case.recipe_name, case.label) for case in there)
    return list(dict(zip(names, there, strict=True)).values())


def _write_curves(one: Report, folder: Path, formats: Sequence[str]) -> Written:
    """Draw the curves of each model, and of all models in one figure."""
    wanted = [name for name in PICTURES if name in formats]
    if not wanted or not len(_scored(one)):
        return Written([], [])
    from bench.report.paper import curves
    from bench.report.paper.curve_data import curves_of

    drawn, unread = curves_of(_scored(one))
    figures = {
        f"curves-{name}": curves.model_figure(curve)
        for name, curve in zip(slugs([curve.label for curve in drawn]), drawn, strict=True)
    }
    if len(drawn) > 1:
        figures["curves"] = curves.overlay_figure(drawn)
    files = [folder / f"{name}.{suffix}" for name in figures for suffix in wanted]
    for file in files:
        curves.save(figures[file.stem], file)
    letters = curves.fonts_of(drawn).note
    return Written(files, [*unread, *([letters] if letters else [])])


def _write_page(one: Report, folder: Path, drawn: Sequence[Path], unread: Sequence[str]) -> Path:
    from bench.report.formats.html import page
    from bench.report.paper import methods

    scored = _scored(one)
    parts = methods.methods(_scored_cases(one, scored), scored) if len(scored) else []
    words = "".join(part for part in parts if isinstance(part, str))
    pngs = [file for file in drawn if file.suffix == ".png"]
    pictures = [("Curves", file) for file in pngs[-1:]]  # the one of all models, or the only one
    file, notes = folder / "report.html", [*notes_beside(one, one.tables), *unread]
    write_text(file, page(one.title, one.tables, words, pictures, notes), sync=False)
    return file
