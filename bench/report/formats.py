"""A table as Markdown, LaTeX or CSV; whatever a name holds, it is text."""

import csv
import io
import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from tabulate import tabulate

EMPTY = "—"
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "…": r"\ldots{}",
    "—": "---",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"\textdagger{}",
}
MARKDOWN_SPECIAL = "\\`*_{}[]<>#|~$&"


@dataclass(frozen=True)
class Figure:
    """A number as a cell: its value in the column's unit, its spread over seeds, a mark."""

    value: float
    digits: int
    spread: float = math.nan
    mark: str = ""

    def text(self, plus_minus: str) -> str:
        """Write the number, and its spread where there is one."""
        if math.isnan(self.value):
            return EMPTY
        mean = f"{self.value:.{self.digits}f}"
        if self.value and not float(mean):
            mean = f"{self.value:.1g}"  # small, not nothing
        spread = "" if math.isnan(self.spread) else f"{plus_minus}{self.spread:.{self.digits}f}"
        return f"{mean}{spread}{self.mark}"


Cell = str | Figure


@dataclass(frozen=True)
class Header:
    """The top of a column; neighbours of one group stand under it."""

    title: str
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table before it has a format."""

    kind: str
    name: str
    caption: str
    headers: list[Header]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)


def markdown(table: Table) -> str:
    """Write a pipe table with its caption above and its notes below."""
    headers = [escape_markdown(f"{h.group} {h.title}".strip()) for h in table.headers]
    rows = [
        [escape_markdown(c) if isinstance(c, str) else c.text(" ± ") for c in row]
        for row in table.rows
    ]
    align = ["left", *["right"] * (len(headers) - 1)]
    body = tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    notes = "".join(f"\n- {escape_markdown(note)}" for note in table.notes)
    return f"**{escape_markdown(table.caption)}**\n\n{body}\n" + (f"{notes}\n" if notes else "")


def escape_markdown(text: str) -> str:
    """Let Markdown show the characters of a text as they are."""
    escaped = "".join(f"\\{c}" if c in MARKDOWN_SPECIAL else c for c in text)
    return " ".join(escaped.split())


def latex(table: Table) -> str:
    """Write a table environment, shrunk to the line where it is too wide."""
    lines = [
        "% needs \\usepackage{booktabs,graphicx,textcomp} and \\usepackage[T1]{fontenc}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}",
        "\\toprule",
        *_latex_groups(table.headers),
        _latex_row([escape_latex(header.title) for header in table.headers]),
        "\\midrule",
        *[
            _latex_row([escape_latex(c) if isinstance(c, str) else _latex_figure(c) for c in row])
            for row in table.rows
        ],
        "\\bottomrule",
        "\\end{tabular}}",
    ]
    lines += [f"\n\\smallskip\\footnotesize {escape_latex(note)}" for note in table.notes]
    return "\n".join([*lines, "\\end{table}", ""])


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_figure(figure: Figure) -> str:
    return figure.text(r" $\pm$ ").replace(EMPTY, "---").replace("†", LATEX_SPECIAL["†"])


def _latex_groups(headers: list[Header]) -> list[str]:
    if not any(header.group for header in headers):
        return []
    cells, rules, start = [], [], 0
    while start < len(headers):
        end = start
        while end < len(headers) and headers[end].group == headers[start].group:
            end += 1
        group = escape_latex(headers[start].group)
        cells.append(f"\\multicolumn{{{end - start}}}{{c}}{{{group}}}" if group else "")
        if group:
            rules.append(f"\\cmidrule(lr){{{start + 1}-{end}}}")
        elif end - start > 1:
            cells[-1] = " & " * (end - start - 1)
        start = end
    return [_latex_row(cells), "".join(rules)]


def escape_latex(text: str) -> str:
    """Let LaTeX print the characters of a text as they are; ? for what its fonts have not."""
    return " ".join("".join(LATEX_SPECIAL.get(c) or _in_fonts(c) for c in text).split())


def _in_fonts(character: str) -> str:
    """Return a character of Latin 1, or the ASCII letters that come closest."""
    if ord(character) < 256:
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?"


def comma_separated(table: Table) -> str:
    """Write figures as plain numbers, unrounded; spread, where there is any, beside them."""
    spread = [any(_has_spread(row[i]) for row in table.rows) for i in range(len(table.headers))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [f"{h.group} {h.title}".strip() for h in table.headers]
    writer.writerow(
        [
            n
            for t, has in zip(titles, spread, strict=True)
            for n in ([t, f"{t} std"] if has else [t])
        ]
    )
    for row in table.rows:
        cells: list[str] = []
        for cell, has in zip(row, spread, strict=True):
            if isinstance(cell, Figure):
                cells += [_plain(cell.value), _plain(cell.spread)] if has else [_plain(cell.value)]
            else:
                cells += ["" if cell == EMPTY else cell, *([""] if has else [])]
        writer.writerow(cells)
    return text.getvalue()


def _has_spread(cell: Cell) -> bool:
    return isinstance(cell, Figure) and not math.isnan(cell.spread)


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "md": (".md", markdown),
    "latex": (".tex", latex),
    "csv": (".csv", comma_separated),
}
