"""A table drawn on a terminal, with as many columns as fit."""

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from bench.report.table import Cell, Header, Table, Text, letters, marks
from bench.text import listed

FEWEST_COLUMNS = 2  # the name and one figure
RULES = box.SIMPLE  # a line below the headers and above a section
PADDING = 3  # characters between two columns
STYLES = {"best": "bold", "second": "italic", "": ""}
SUPERSCRIPTS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ𐞥ʳˢᵗᵘᵛʷˣʸᶻ")


def draw(table: Table, console: Console) -> None:
    """Draw a table under its caption; columns that do not fit are named below it."""
    cells = [[_cell(cell) for cell in row] for row in table.rows]
    shown = _fitting(table.headers, cells, console.width)
    drawn = RichTable(box=RULES, show_edge=False, header_style="bold", pad_edge=False)
    for i, header in enumerate(table.headers[:shown]):
        drawn.add_column(
            RichText(header.whole),
            justify="right" if table.is_numeric(i) else "left",
            no_wrap=table.is_numeric(i),
        )
    for number, row in enumerate(cells):
        if number in table.rules:
            drawn.add_section()
        drawn.add_row(*row[:shown])
    console.print(RichText(table.caption, style="bold"))
    console.print(drawn)
    for line in _below(table, shown):
        console.print(RichText(f"  {line}"), soft_wrap=False)
    console.print()


def _cell(cell: Cell) -> RichText:
    mark = marks(cell).translate(SUPERSCRIPTS)
    if isinstance(cell, Text):
        return RichText(f"{cell.text}{mark}")
    text = RichText(cell.number, style=STYLES[cell.rank])
    text.append(f" ± {cell.spread_text}" if cell.spread_text else "", style="not bold not italic")
    return text.append(mark, style="not bold not italic")


def _fitting(headers: list[Header], cells: list[list[RichText]], width: int) -> int:
    """Return how many columns, from the left, fit side by side."""
    used = 0
    for i, header in enumerate(headers):
        used += max([len(header.whole), *(row[i].cell_len for row in cells)])
        if used > width and i >= FEWEST_COLUMNS:
            return i
        used += PADDING
    return len(headers)


def _below(table: Table, shown: int) -> list[str]:
    lines = []
    if table.headers[shown:]:
        names = listed((header.whole for header in table.headers[shown:]), most=20)
        lines.append(f"Too narrow for: {names}. The files have all columns.")
    lines += [f"{letters(i)}  {text}" for i, text in enumerate(table.footnotes)]
    if table.card:
        lines.append(f"Protocol: {'; '.join(f'{term}: {text}' for term, text in table.card)}.")
    return lines + table.notes
