"""The formats of a single table, by name."""

from collections.abc import Callable

from bench.report.latex import latex
from bench.report.markdown import markdown
from bench.report.table import Table
from bench.report.values import as_json, comma_separated

FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "md": (".md", markdown),
    "latex": (".tex", latex),
    "csv": (".csv", comma_separated),
    "json": (".json", as_json),
}
