import html as escapes
import math
import re
from pathlib import Path

from fixtures import pdf_text, require_pdflatex
from markdown_it import MarkdownIt

from bench.report.formats import Figure, Header, Table, comma_separated, latex, markdown

NASTY = "<script>a_b&c% | $x$ {y} \\z #1 ~ ^ `code` *bold* \"q\" 'r' [l](u)"
TABLE = Table(
    kind="t",
    name="t",
    caption=f"Caption {NASTY}",
    headers=[Header("Model"), Header("mIoU [%]", "val"), Header("Time [s]", "val")],
    rows=[
        [NASTY, Figure(12.345, 2, 0.5), Figure(3.0, 1)],
        ["plain", Figure(math.nan, 2), Figure(4.25, 1)],
    ],
    notes=[f"Note {NASTY}"],
)


def test_markdown_by_hand() -> None:
    table = Table(
        "t", "t", "C", [Header("M"), Header("x", "g")], [["a|b", Figure(1.5, 1, 0.25)]], ["n"]
    )
    assert markdown(table) == (
        "**C**\n\n| M    |       g x |\n|:-----|----------:|\n| a\\|b | 1.5 ± 0.2 |\n\n- n\n"
    )


def test_markdown_shows_names_as_they_are() -> None:
    """A renderer that is not ours gives back the very text."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(TABLE))
    assert "<script>" not in html
    assert "<td>" in html or "<td " in html
    cells = [
        escapes.unescape(re.sub("<[^>]+>", "", c)) for c in re.findall(r"<td.*?>(.*?)</td>", html)
    ]
    assert cells[0] == NASTY
    assert "12.35 ± 0.50" in cells[1] or "12.34 ± 0.50" in cells[1]


def test_csv_is_plain_numbers() -> None:
    lines = comma_separated(TABLE).splitlines()
    assert lines[0] == "Model,val mIoU [%],val mIoU [%] std,val Time [s]"
    assert lines[2] == "plain,,,4.25"


def test_latex_by_hand() -> None:
    text = latex(TABLE)
    assert "\\multicolumn{2}{c}{val}" in text
    assert "\\cmidrule(lr){2-3}" in text
    assert "plain & --- & 4.2 \\\\" in text


def test_latex_compiles_with_any_name(tmp_path: Path) -> None:
    require_pdflatex()
    assert "Output written" in pdf_text(latex(TABLE), tmp_path)
