"""A table as Markdown: a pipe table, with its caption above and the notes below."""

import re

from tabulate import tabulate

from bench.report.table import Cell, Table, Text, letters, marks

SPECIAL = "\\`*_{}[]<>#|~$&"


def markdown(table: Table) -> str:
    """Write a table; the best figures are bold, the second best in italics."""
    headers = [escape(header.whole) for header in table.headers]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    numeric = [table.is_numeric(i) for i in range(len(headers))]
    align = ["right" if is_numeric else "left" for is_numeric in numeric]
    body = tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    below = [f"<sup>{letters(i)}</sup> {escape(text)}" for i, text in enumerate(table.footnotes)]
    if table.card:
        items = (f"{escape(term)}: {escape(text)}" for term, text in table.card)
        below.append(f"Protocol. {'; '.join(items)}.")
    below += [escape(note) for note in table.notes]
    listed = "".join(f"\n- {line}" for line in below)
    return f"**{escape(table.caption)}**\n\n{body}\n" + (f"{listed}\n" if listed else "")


def _cell(cell: Cell) -> str:
    mark = f"<sup>{marks(cell)}</sup>" if cell.notes else ""
    if isinstance(cell, Text):
        return escape(cell.text) + mark
    around = {"best": "**", "second": "_", "": ""}[cell.rank]
    spread = f" ± {cell.spread_text}" if cell.spread_text else ""
    return f"{around}{cell.number}{around}{spread}{mark}"


def escape(text: str) -> str:
    """Escape a text so that Markdown shows it literally."""
    escaped = "".join(f"\\{c}" if c in SPECIAL else c for c in text)
    return re.sub(r"\s+", " ", escaped).strip()
