"""The formats of a table, by name."""

from collections.abc import Callable

from bench.report.formats.csv_json import as_json, comma_separated
from bench.report.formats.latex import latex
from bench.report.formats.markdown import markdown
from bench.report.table import Table

FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "md": (".md", markdown),
    "latex": (".tex", latex),
    "csv": (".csv", comma_separated),
    "json": (".json", as_json),
}
