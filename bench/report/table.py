"""A table before it has a format: text and figures, what they rest on, and footnotes."""

import math
from dataclasses import dataclass, field
from typing import Literal

EMPTY = "—"
Rank = Literal["", "best", "second"]


@dataclass(frozen=True)
class Figure:
    """A number as a cell.

    value: in the column's unit; NaN where there is none.
    spread: over seeds; NaN where there is none.
    rank: best is also what cannot be told apart from the best.
    notes: places of its footnotes in the table's.
    """

    value: float
    digits: int
    spread: float = math.nan
    rank: Rank = ""
    notes: tuple[int, ...] = ()

    @property
    def number(self) -> str:
        """The rounded number alone; a small one is not nothing."""
        if math.isnan(self.value):
            return EMPTY
        text = f"{self.value:.{self.digits}f}"
        return text if float(text) or not self.value else f"{self.value:.1g}"

    @property
    def spread_text(self) -> str:
        """The rounded spread alone, or nothing."""
        there = not (math.isnan(self.spread) or math.isnan(self.value))
        return f"{self.spread:.{self.digits}f}" if there else ""


@dataclass(frozen=True)
class Text:
    """Text as a cell, with the places of its footnotes in the table's."""

    text: str
    notes: tuple[int, ...] = ()


Cell = Text | Figure


@dataclass(frozen=True)
class Header:
    """The top of a column; neighbours of one group stand under it."""

    title: str
    group: str = ""

    @property
    def whole(self) -> str:
        """Group and title on one line."""
        return f"{self.group} {self.title}".strip()


@dataclass(frozen=True)
class Table:
    """A table before it has a format.

    card: what its figures rest on, by term: the protocol.
    footnotes: cells refer to them by place; they are shown as a, b, c.
    rules: rows that a line is drawn above.
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
        """Say whether a column holds figures."""
        return any(isinstance(row[column], Figure) for row in self.rows)


class Footnotes:
    """The footnotes of a table being made: each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> int:
        """Return the place of a footnote."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text)


def letters(place: int) -> str:
    """Name a footnote: a, b, … z, aa, ab, …"""
    text = ""
    place += 1
    while place:
        place, last = divmod(place - 1, 26)
        text = chr(ord("a") + last) + text
    return text


def marks(cell: Cell) -> str:
    """Name the footnotes of a cell, separated by commas."""
    return ",".join(map(letters, sorted(cell.notes)))
