r"""A table as LaTeX, ready for \input: booktabs, numbers aligned by siunitx, escaped text."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from bench.report.formats.latex_letters import escape, needs
from bench.report.table import EMPTY, Cell, Figure, Header, Table, Text, letters, marks

BREAK = r"\\"
LETTERS_OF_A_LINE = 60  # of body text, across the page of an article
LETTERS_OF_TWO_COLUMNS = 100  # the same for a two-column article
LETTERS_OF_A_HEADER = 9  # per line; longer headers are broken between words


Digits = tuple[str, int, int]


@dataclass(frozen=True)
class Column:
    """What a column's cells have in common.

    number: "-" or "", and the most digits before and after the point; None if it holds text.
    has_more: whether a number has a spread or a mark, which are set in a separate column.
    share: of the line width, for long text; 0 for short text.
    """

    header: Header
    number: Digits | None
    has_more: bool
    share: float
    letters: int


def latex(table: Table) -> str:
    """Write a table environment; a wide table spans both columns, a wider one is shrunk too."""
    if _width(_columns(table)) > LETTERS_OF_TWO_COLUMNS:
        table = _stacked(table)
    columns = _columns(table)
    is_wide = _width(columns) > LETTERS_OF_A_LINE
    environment = "table*" if is_wide else "table"
    body: list[str] = []
    for number, row in enumerate(table.rows):
        if number in table.rules:
            body.append("\\midrule")
        body.append(_row([_cell(cell, column) for cell, column in zip(row, columns, strict=True)]))
    lines = [
        f"\\begin{{{environment}}}",
        "\\centering",
        *(["\\setlength{\\tabcolsep}{3.5pt}"] if is_wide else []),
        f"\\caption{{{escape(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        "\\smallskip",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{''.join(map(_specification, columns))}}}",
        "\\toprule",
        *_groups(columns),
        _row(list(map(_header, columns))),
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}}",
        *_below(table),
        f"\\end{{{environment}}}",
        "",
    ]
    return "\n".join([*needs(lines), *lines])


def _width(columns: Sequence[Column]) -> int:
    return sum(2 + column.letters for column in columns)


def _stacked(table: Table) -> Table:
    """Stack groups with equal columns one below the other; other tables stay unchanged."""
    first, *headers = table.headers
    groups = [
        (name, [header.title for header in of])
        for name, of in groupby(headers, key=lambda header: header.group)
    ]
    titles = [of for _, of in groups]
    if len(groups) < 2 or any(one != titles[0] for one in titles):
        return table
    width = len(titles[0])
    rows: list[list[Cell]] = []
    rules = set()
    for number, (name, _) in enumerate(groups):
        rules.add(len(rows))
        rows.append([Text(name), *[Text("")] * width])
        start = 1 + number * width
        rows += [[row[0], *row[start : start + width]] for row in table.rows]
    new_headers = [first, *(Header(title) for title in titles[0])]
    return replace(table, headers=new_headers, rows=rows, rules=frozenset(rules - {0}))


def _columns(table: Table) -> list[Column]:
    cells = [[row[i] for row in table.rows] for i in range(len(table.headers))]
    is_long = [
        i > 0 and any(isinstance(c, Text) and len(c.text) > LETTERS_OF_A_LINE / 2 for c in column)
        for i, column in enumerate(cells)
    ]
    share = round(0.8 / sum(is_long), 2) if any(is_long) else 0.0
    found = []
    for header, column, long in zip(table.headers, cells, is_long, strict=True):
        figures = [cell for cell in column if isinstance(cell, Figure)]
        more = any(f.spread_text for f in figures) or any(cell.notes for cell in column)
        lengths = [*map(len, _header_lines(header)), *(len(_plain(cell)) for cell in column)]
        number = _digits(figures) if figures else None
        found.append(
            Column(header, number, bool(figures) and more, share if long else 0.0, max(lengths))
        )
    return found


def _below(table: Table) -> list[str]:
    """Write footnotes, the protocol and notes in small type, one paragraph each."""
    lines = [
        f"\\textsuperscript{{{letters(i)}}}\\,{escape(text)}"
        for i, text in enumerate(table.footnotes)
    ]
    if table.card:
        items = (f"{escape(term)}: {escape(text)}" for term, text in table.card)
        lines.append(f"\\textit{{Protocol.}} {'; '.join(items)}.")
    lines += [escape(note) for note in table.notes]
    if not lines:
        return []
    text = "\\par\n".join(lines)
    return [
        "\\par\\smallskip",
        "\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright\\emergencystretch=\\hsize",
        f"{text}\\par",
        "\\end{minipage}",
    ]


def _header_lines(header: Header) -> list[str]:
    """Break a title into lines, between words."""
    return textwrap.wrap(header.title, LETTERS_OF_A_HEADER, break_long_words=False) or [""]


def _plain(cell: Cell) -> str:
    if isinstance(cell, Text):
        return cell.text
    return cell.number + (f" ± {cell.spread_text}" if cell.spread_text else "") + marks(cell)


def _digits(figures: Sequence[Figure]) -> Digits:
    """Return the sign ("-" or ""), and the most digits before and after the point."""
    texts = [figure.number for figure in figures]
    parts = [t.partition(".") for t in texts if t != EMPTY and "e" not in t]
    before = max((len(p[0].lstrip("-")) for p in parts), default=1)
    sign = "-" if any(p[0].startswith("-") for p in parts) else ""
    return sign, before, max((len(p[2]) for p in parts), default=0)


def _specification(column: Column) -> str:
    if column.share:
        return f">{{\\raggedright\\arraybackslash}}p{{{column.share}\\linewidth}}"
    if column.number is None:
        return "l"
    sign, before, after = column.number
    number = f"S[table-format={sign}{before}.{after},detect-weight,mode=text]"
    return number + ("@{}l" if column.has_more else "")


def _header(column: Column) -> str:
    if column.number is None:
        return escape(column.header.title)
    lines = [escape(line) for line in _header_lines(column.header)]
    title = lines[0] if len(lines) == 1 else f"\\shortstack{{{BREAK.join(lines)}}}"
    return f"\\multicolumn{{2}}{{c}}{{{title}}}" if column.has_more else f"{{{title}}}"


def _cell(cell: Cell, column: Column) -> str:
    mark = f"\\textsuperscript{{{marks(cell)}}}" if cell.notes else ""
    if isinstance(cell, Text):
        text = escape(cell.text)
        if column.has_more:
            return f"{{{text}}} & {mark}" if text else " & "
        return f"{{{text}{mark}}}" if column.number is not None else text + mark
    assert column.number is not None
    spread = f"\\,$\\pm$\\,{cell.spread_text}" if cell.spread_text else ""
    return _number(cell, column.number) + (f" & {spread}{mark}" if column.has_more else "")


def _number(figure: Figure, digits: Digits) -> str:
    number = figure.number
    if number == EMPTY:
        return "{---}"
    if "e" in number:
        return f"{{{number}}}"
    if figure.rank == "best":
        return f"\\bfseries {number}"
    if figure.rank == "second":  # siunitx cannot underline: pad to the width of the column
        before, _, after = number.partition(".")
        pads = ["0" * (digits[1] - len(before)), "0" * (digits[2] - len(after))]
        left, right = (f"\\phantom{{{pad}}}" if pad else "" for pad in pads)
        return f"{{{left}\\underline{{{number}}}{right}}}"
    return number


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _groups(columns: Sequence[Column]) -> list[str]:
    if not any(column.header.group for column in columns):
        return []
    cells, rules, place = [], [], 1
    for group, members in groupby(columns, key=lambda column: column.header.group):
        width = sum(1 + column.has_more for column in members)
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return [_row(cells), "".join(rules)]
