"""Contact sheets are written in any script."""

from pathlib import Path

import numpy as np
import pytest

from bench.datasets.base import Labels
from bench.evaluation.drawing import Tile, contact_sheet
from bench.machine import fonts


def sheet(name: str) -> tuple[np.ndarray, str]:
    labels = Labels((name,), ((0, 90, 0),))
    tile = Tile(name, np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8))
    return contact_sheet(name, [[tile]], labels)


@pytest.mark.usefixtures("_only_dejavu")
def test_letters_that_no_font_has_are_said() -> None:
    picture, note = sheet("模型 λ≥0.5")
    assert "No font on this machine has the letters 型模" in note
    assert fonts.fonts_for(["模a"]).drawable("模a\n") == "\\u6a21a\\n"
    other, _ = sheet("模型 λ≥0.6")
    assert picture.shape == other.shape
    assert not np.array_equal(picture, other)  # the rest of the name is there
    assert sheet("λ≥0.5, Straße, дорога")[1] == ""


@pytest.mark.usefixtures("_only_dejavu")
def test_a_font_that_has_them_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font of the machine stands in for the one with the letters."""
    have = {Path("a.ttf"): "模", Path("b.ttf"): "模型", Path("c.ttf"): ""}
    known = fonts._letters
    monkeypatch.setattr(fonts, "_others", lambda: tuple(have))
    monkeypatch.setattr(fonts, "_letters", lambda file: frozenset(have.get(file) or known(file)))
    found = fonts.fonts_for(["模型a"])
    assert [file.name for file in found.files] == ["DejaVuSans.ttf", "b.ttf"]
    assert (found.missing, found.note) == ("", "")
    assert fonts.font_of("型", found) == Path("b.ttf")
    assert fonts.font_of("a", found).name == "DejaVuSans.ttf"
