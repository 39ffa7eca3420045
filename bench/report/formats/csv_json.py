"""A table for programs: CSV and JSON, with unrounded numbers."""

import csv
import io
import json
import math
from typing import Any

from bench.report.table import EMPTY, Cell, Figure, Table, Text


def comma_separated(table: Table) -> str:
    """Write one line per row; spreads and footnotes, if any, get columns of their own."""
    spread = [
        any(isinstance(cell := row[i], Figure) and cell.spread_text for row in table.rows)
        for i in range(len(table.headers))
    ]
    noted = bool(table.footnotes)
    titles: list[str] = []
    for header, has_spread in zip(table.headers, spread, strict=True):
        titles += [header.whole, f"{header.whole} std"] if has_spread else [header.whole]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*titles, "Notes"] if noted else titles)
    for row in table.rows:
        cells: list[str] = []
        for cell, has_spread in zip(row, spread, strict=True):
            if isinstance(cell, Figure):
                cells.append(_plain(cell.value))
                cells += [_plain(cell.spread)] if has_spread else []
            else:
                cells.append("" if cell.text == EMPTY else cell.text)
                cells += [""] if has_spread else []
        places = sorted({place for cell in row for place in cell.notes})
        notes = " ".join(table.footnotes[place] for place in places)
        writer.writerow([*cells, notes] if noted else cells)
    return text.getvalue()


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"


def as_json(table: Table) -> str:
    """Write everything in a table; missing numbers are null."""
    content = {
        "kind": table.kind,
        "name": table.name,
        "caption": table.caption,
        "columns": [{"title": h.title, "group": h.group} for h in table.headers],
        "rows": [[_value(cell) for cell in row] for row in table.rows],
        "protocol": dict(table.card),
        "notes": table.notes,
        "footnotes": table.footnotes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _value(cell: Cell) -> dict[str, Any]:
    if isinstance(cell, Text):
        return {"text": cell.text} | ({"footnotes": list(cell.notes)} if cell.notes else {})
    more: dict[str, Any] = {} if math.isnan(cell.spread) else {"spread": cell.spread}
    more |= {"rank": cell.rank} if cell.rank else {}
    more |= {"footnotes": list(cell.notes)} if cell.notes else {}
    return {"value": None if math.isnan(cell.value) else cell.value} | more
