"""A table before it is formatted: cells, protocol, notes and footnotes."""

import math
from dataclasses import dataclass, field
from typing import Literal

EMPTY = "—"
Rank = Literal["", "best", "second"]


@dataclass(frozen=True)
class Figure:
    """A number as a cell.

    value: in the column's unit; NaN if missing.
    spread: standard deviation over seeds; NaN if missing.
    rank: "best" includes values not significantly different from the best.
    notes: indices into the table's footnotes.
    """

    value: float
    digits: int
    spread: float = math.nan
    rank: Rank = ""
    notes: tuple[int, ...] = ()

    @property
    def number(self) -> str:
        """The rounded number without its spread; a small number is never shown as 0."""
        if math.isnan(self.value):
            return EMPTY
        text = f"{self.value:.{self.digits}f}"
        return text if float(text) or not self.value else f"{self.value:.1g}"

    @property
    def spread_text(self) -> str:
        """The rounded spread, or an empty string."""
        there = not (math.isnan(self.spread) or math.isnan(self.value))
        return f"{self.spread:.{self.digits}f}" if there else ""


@dataclass(frozen=True)
class Text:
    """Text as a cell, with indices into the table's footnotes."""

    text: str
    notes: tuple[int, ...] = ()


Cell = Text | Figure


@dataclass(frozen=True)
class Header:
    """The header of a column; neighbours with the same group share it above their titles."""

    title: str
    group: str = ""

    @property
    def whole(self) -> str:
        """Group and title on one line."""
        return f"{self.group} {self.title}".strip()


@dataclass(frozen=True)
class Table:
    """A table before it is formatted.

    card: the protocol, as pairs of term and text.
    notes: sentences shown below the table.
    footnotes: cells refer to them by index; they are shown as a, b, c.
    rules: indices of rows with a line above.
    """

    kind: str
    name: str
    caption: str
    headers: list[Header]
    rows: list[list[Cell]]
    card: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)
    rules: frozenset[int] = frozenset()

    def is_numeric(self, column: int) -> bool:
        """Return whether a column holds numbers."""
        return any(isinstance(row[column], Figure) for row in self.rows)


class Footnotes:
    """The footnotes of a table under construction; each text is kept once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> int:
        """Add a footnote if it is new, and return its index."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text)


def letters(place: int) -> str:
    """Return the mark of a footnote: a, b, … z, aa, ab, …"""
    text = ""
    place += 1
    while place:
        place, last = divmod(place - 1, 26)
        text = chr(ord("a") + last) + text
    return text


def marks(cell: Cell) -> str:
    """Return the footnote marks of a cell, separated by commas."""
    return ",".join(map(letters, sorted(cell.notes)))
