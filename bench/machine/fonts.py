"""Fonts that have the letters of a text: DejaVu Sans, then what the machine has."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from matplotlib.font_manager import findfont, findSystemFonts, get_font

FIRST = "DejaVu Sans"  # ships with matplotlib: the same letters on every machine
PLAIN = ("regular", "sans", "noto")  # in the names of fonts that go first


@dataclass(frozen=True)
class Fonts:
    """The fonts for some texts.

    files: each letter is drawn with the first font that has it.
    missing: the letters that no font has; `drawable` writes their codes.
    """

    files: tuple[Path, ...]
    missing: str

    def drawable(self, text: str) -> str:
        """Replace letters that no font has, and control characters, by their Python escapes."""
        return "".join(
            c if c.isprintable() and c not in self.missing else c.encode("unicode_escape").decode()
            for c in text
        )

    @property
    def note(self) -> str:
        """What a reader should know about missing letters; empty if there are none."""
        if not self.missing:
            return ""
        return (
            f"No font on this machine has the letters {self.missing}; pictures show their codes. "
            "Install a font that has them, such as Noto."
        )


def fonts_for(texts: Iterable[str]) -> Fonts:
    """Choose fonts that have all letters of some texts, as far as the machine has them."""
    return _fonts_for(frozenset(c for text in texts for c in text if c.isprintable()))


@cache
def _fonts_for(letters: frozenset[str]) -> Fonts:
    first = Path(findfont(FIRST))
    files, missing = [first], letters - _letters(first)
    while missing:
        best = max(_others(), key=lambda file: len(missing & _letters(file)), default=first)
        if not missing & _letters(best):
            break
        files.append(best)
        missing -= _letters(best)
    return Fonts(tuple(files), "".join(sorted(missing)))


@cache
def _others() -> tuple[Path, ...]:
    """Return the fonts of the machine, plain ones first."""

    def place(file: Path) -> tuple[int, str]:
        return -sum(word in file.name.lower() for word in PLAIN), file.name

    return tuple(sorted({Path(name) for name in findSystemFonts()}, key=place))


@cache
def _letters(file: Path) -> frozenset[str]:
    """Return the letters that a font has; none if it cannot be read."""
    try:
        return frozenset(map(chr, get_font(str(file)).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def font_of(letter: str, fonts: Fonts) -> Path:
    """Return the first of some fonts that has a letter; the first of all if none has it."""
    return next((file for file in fonts.files if letter in _letters(file)), fonts.files[0])
