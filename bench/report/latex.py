r"""A table as LaTeX, ready for \input: booktabs, numbers aligned by siunitx, escaped text."""

import textwrap
import unicodedata

from bench.report.table import EMPTY, Cell, Figure, Header, Table, Text, letters, marks

SPECIAL = {
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
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "…": r"\ldots{}",
    "—": "---",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
}
BREAK = r"\\"
LIGATURES = "-',"  # two of them would become another character
NEEDS = (
    "% needs \\usepackage{array,booktabs,graphicx,siunitx,textcomp}, \\usepackage[T1]{fontenc}",
    "% and \\usepackage[utf8]{inputenc} before TeX Live 2018",
)
LETTERS_OF_A_LINE = 60  # of body text that fit beside each other across an article's page
LETTERS_OF_A_HEADER = 9  # in one line; a longer one is broken between words


def latex(table: Table) -> str:
    """Write a table environment; over both columns where wide, shrunk where it is wider still."""
    is_wide = _width(table) > LETTERS_OF_A_LINE
    environment = "table*" if is_wide else "table"
    split = [_has_more(table, i) for i in range(len(table.headers))]
    body: list[str] = []
    for number, row in enumerate(table.rows):
        if number in table.rules:
            body.append("\\midrule")
        body.append(_row([_cell(cell, table, i, split[i]) for i, cell in enumerate(row)]))
    lines = [
        *NEEDS,
        f"\\begin{{{environment}}}",
        "\\centering",
        *(["\\setlength{\\tabcolsep}{3.5pt}"] if is_wide else []),
        f"\\caption{{{escape(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{''.join(_column(table, i, split[i]) for i in range(len(split)))}}}",
        "\\toprule",
        *_groups(table.headers, split),
        _row([_header(table, i, split[i]) for i in range(len(split))]),
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}}",
        *_below(table),
        f"\\end{{{environment}}}",
        "",
    ]
    return "\n".join(lines)


def _below(table: Table) -> list[str]:
    """Write footnotes, the protocol and notes in small type, each a paragraph of its own."""
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


def _width(table: Table) -> int:
    """Return the letters of the widest row, two for each gap between columns."""
    width = 0
    for i, header in enumerate(table.headers):
        cells = [_plain(row[i]) for row in table.rows]
        width += 2 + max(map(len, [*_header_lines(header), *cells]))
    return width


def _header_lines(header: Header) -> list[str]:
    """Break a title between words, its unit by itself."""
    return textwrap.wrap(header.title, LETTERS_OF_A_HEADER, break_long_words=False) or [""]


def _share_of_texts(table: Table) -> float:
    """Return the share of the line that each column of long texts gets; 0 where none is long."""
    long = [i for i in range(1, len(table.headers)) if _is_long(table, i)]
    return round(0.8 / len(long), 2) if long else 0.0


def _is_long(table: Table, column: int) -> bool:
    texts = [row[column] for row in table.rows]
    return any(isinstance(cell, Text) and len(cell.text) > LETTERS_OF_A_LINE / 2 for cell in texts)


def _plain(cell: Cell) -> str:
    if isinstance(cell, Text):
        return cell.text
    return cell.number + (f" ± {cell.spread_text}" if cell.spread_text else "") + marks(cell)


def _has_more(table: Table, column: int) -> bool:
    """Say whether something stands behind the numbers of a column: a spread or a mark."""
    cells = [row[column] for row in table.rows]
    return table.is_numeric(column) and any(
        cell.notes or (isinstance(cell, Figure) and cell.spread_text) for cell in cells
    )


def _numbers(table: Table, column: int) -> tuple[int, int]:
    """Return the most digits before and after the point of a column's numbers."""
    texts = [cell.number for row in table.rows if isinstance(cell := row[column], Figure)]
    parts = [t.partition(".") for t in texts if t != EMPTY and "e" not in t]
    before = max((len(p[0]) for p in parts), default=1)
    return before, max((len(p[2]) for p in parts), default=0)


def _column(table: Table, column: int, is_split: bool) -> str:
    if column and _is_long(table, column):
        return f">{{\\raggedright\\arraybackslash}}p{{{_share_of_texts(table)}\\linewidth}}"
    if not table.is_numeric(column):
        return "l"
    before, after = _numbers(table, column)
    number = f"S[table-format={before}.{after},detect-weight,mode=text]"
    return number + ("@{}l" if is_split else "")


def _header(table: Table, column: int, is_split: bool) -> str:
    lines = [escape(line) for line in _header_lines(table.headers[column])]
    if not table.is_numeric(column):
        return escape(table.headers[column].title)
    title = lines[0] if len(lines) == 1 else f"\\shortstack{{{BREAK.join(lines)}}}"
    if is_split:
        return f"\\multicolumn{{2}}{{c}}{{{title}}}"
    return f"{{{title}}}"


def _cell(cell: Cell, table: Table, column: int, is_split: bool) -> str:
    mark = f"\\textsuperscript{{{marks(cell)}}}" if cell.notes else ""
    if isinstance(cell, Text):
        text = escape(cell.text)
        if is_split:
            return f"{{{text}}} & {mark}"
        return f"{{{text}{mark}}}" if table.is_numeric(column) else text + mark
    spread = f"\\,$\\pm$\\,{cell.spread_text}" if cell.spread_text else ""
    return _number(cell, _numbers(table, column)) + (f" & {spread}{mark}" if is_split else "")


def _number(figure: Figure, format_: tuple[int, int]) -> str:
    number = figure.number
    if number == EMPTY:
        return "{---}"
    if "e" in number:
        return f"{{{number}}}"
    if figure.rank == "best":
        return f"\\bfseries {number}"
    if figure.rank == "second":  # siunitx underlines nothing: a box as wide as its own
        before, _, after = number.partition(".")
        left = "0" * (format_[0] - len(before))
        right = "0" * (format_[1] - len(after))
        pads = [f"\\phantom{{{pad}}}" if pad else "" for pad in (left, right)]
        return f"{{{pads[0]}\\underline{{{number}}}{pads[1]}}}"
    return number


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _groups(headers: list[Header], split: list[bool]) -> list[str]:
    if not any(header.group for header in headers):
        return []
    cells, rules, start, column = [], [], 0, 1
    while start < len(headers):
        end = start
        while end < len(headers) and headers[end].group == headers[start].group:
            end += 1
        width = end - start + sum(split[start:end])
        group = escape(headers[start].group)
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{group}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{column}-{column + width - 1}}}")
        start, column = end, column + width
    return [_row(cells), "".join(rules)]


def escape(text: str) -> str:
    """Let LaTeX print the characters of a text as they are; ? for what its fonts have not."""
    shown = []
    for before, character in zip(f" {text}", text, strict=False):
        apart = "{}" if before == character and character in LIGATURES else ""
        shown.append(apart + (SPECIAL.get(character) or _in_fonts(character)))
    return " ".join("".join(shown).split())


def _in_fonts(character: str) -> str:
    """Return a character of Latin 1, or the ASCII letters that come closest."""
    if ord(character) < 256:
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?"
