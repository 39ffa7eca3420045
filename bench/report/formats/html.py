"""A report as one self-contained HTML page."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from bench.report.table import Cell, Figure, Table, letters, marks


def page(
    title: str,
    tables: Sequence[Table],
    methods: str,
    pictures: Sequence[tuple[str, Path]],
    notes: Sequence[str],
) -> str:
    """Write the page.

    Args:
        methods: plain text.
        pictures: titles and PNG files, which are embedded in the page.
    """
    environment = Environment(
        loader=PackageLoader(__name__, package_path=""), autoescape=True, keep_trailing_newline=True
    )
    shown = [(alt, base64.b64encode(file.read_bytes()).decode()) for alt, file in pictures]
    return environment.get_template("page.html").render(
        title=title,
        tables=tables,
        methods=methods,
        pictures=shown,
        notes=notes,
        kind=_kind,
        grouped=_grouped,
        is_figure=_is_figure,
        letters=letters,
        marks=marks,
    )


def _kind(table: Table) -> str:
    return table.kind.replace("_", " ").capitalize()


def _is_figure(cell: Cell) -> bool:
    return isinstance(cell, Figure)


def _grouped(table: Table) -> list[tuple[str, int]]:
    """Return the groups of headers with their widths, or nothing if no header has a group."""
    if not any(header.group for header in table.headers):
        return []
    groups: list[tuple[str, int]] = []
    for header in table.headers:
        if groups and groups[-1][0] == header.group:
            groups[-1] = (header.group, groups[-1][1] + 1)
        else:
            groups.append((header.group, 1))
    return groups
