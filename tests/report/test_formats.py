import csv
import html as escapes
import io
import json
import math
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from fixtures import pdf_text, require_pdflatex
from markdown_it import MarkdownIt

from bench.report.formats.csv_json import as_json, comma_separated
from bench.report.formats.html import page
from bench.report.formats.latex import latex
from bench.report.formats.latex_letters import NOT_IN_T1, escape
from bench.report.formats.markdown import markdown
from bench.report.table import Cell, Figure, Footnotes, Header, Table, Text, letters

NASTY = "<script>a_b&c% | $x$ {y} \\z #1 ~ ^ `code` *bold* \"q\" 'r' [l](u) ''--''"
NAN = math.nan


def table(*rows: list[Cell], **changes: object) -> Table:
    headers = [Header("Model"), Header("mIoU (%)", "val"), Header("Time (s)", "val")]
    return Table("t", "t", "C", headers, list(rows), **changes)


TABLE = Table(
    kind="t",
    name="t",
    caption=f"Caption {NASTY}",
    headers=[Header("Model"), Header("mIoU (%)", "val"), Header("Time (s)", "val")],
    rows=[
        [Text(NASTY, (0,)), Figure(12.345, 2, 0.5, "best"), Figure(3.0, 1)],
        [Text("plain"), Figure(NAN, 2), Figure(104.25, 1, notes=(1,))],
        [Text("next"), Figure(9.5, 2, 0.25, "second"), Text("—")],
    ],
    card=[("data", NASTY)],
    notes=[f"Note {NASTY}"],
    footnotes=[f"First {NASTY}", "Second."],
    rules=frozenset({2}),
)


def test_markdown_by_hand() -> None:
    made = Table(
        "t",
        "t",
        "C",
        [Header("M"), Header("x", "g")],
        [[Text("a|b", (0,)), Figure(1.5, 1, 0.25, "best")], [Text("c"), Figure(1, 1)]],
        card=[("data", "d")],
        notes=["n"],
        footnotes=["f"],
    )
    assert markdown(made) == (
        "**C**\n\n"
        "| M                |           g x |\n"
        "|:-----------------|--------------:|\n"
        "| a\\|b<sup>a</sup> | **1.5** ± 0.2 |\n"
        "| c                |           1.0 |\n"
        "\n- <sup>a</sup> f\n- Protocol. data: d.\n- n\n"
    )


def test_markdown_shows_names_literally() -> None:
    """An independent renderer returns the original text."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(TABLE))
    assert "<script>" not in html
    cells = re.findall(r"<td.*?>(.*?)</td>", html)
    first = re.sub(r"<sup>.*?</sup>", "", cells[0])
    assert escapes.unescape(re.sub("<[^>]+>", "", first)) == NASTY
    assert re.search(r"<strong>12\.3[45]</strong> ± 0\.50", cells[1])
    assert "<em>9.50</em>" in cells[7]


def test_html_shows_names_literally() -> None:
    html = page(NASTY, [TABLE], NASTY, [], [NASTY])
    assert "<script>" not in html
    shown = escapes.escape(NASTY).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    assert html.count(shown) == 9  # title twice, methods, caption, cell, footnote, card, notes
    assert '<span class="second">9.50</span> ± 0.25' in html
    assert '<th colspan="2" class="group">val</th>' in html
    assert html.count('<tr class="rule">') == 1


def test_csv_has_plain_numbers() -> None:
    rows = list(csv.reader(io.StringIO(comma_separated(TABLE))))
    assert rows[0] == ["Model", "val mIoU (%)", "val mIoU (%) std", "val Time (s)", "Notes"]
    assert rows[1] == [NASTY, "12.345", "0.5", "3", f"First {NASTY}"]
    assert rows[2] == ["plain", "", "", "104.25", "Second."]
    assert rows[3] == ["next", "9.5", "0.25", "", ""]


def test_json_has_everything() -> None:
    content = json.loads(as_json(TABLE))
    assert content["rows"][0] == [
        {"text": NASTY, "footnotes": [0]},
        {"value": 12.345, "spread": 0.5, "rank": "best"},
        {"value": 3.0},
    ]
    assert content["rows"][1][1] == {"value": None}
    assert content["protocol"] == {"data": NASTY}


def test_latex_by_hand() -> None:
    lines = latex(TABLE).splitlines()
    assert "\\multicolumn{1}{c}{} & \\multicolumn{4}{c}{val} \\\\" in lines
    assert "\\cmidrule(lr){2-5}" in lines
    number = "detect-weight,mode=text]@{}l"
    assert f"\\begin{{tabular}}{{lS[table-format=2.2,{number}S[table-format=3.1,{number}}}" in lines
    assert "plain & {---} &  & 104.2 & \\textsuperscript{b} \\\\" in lines
    second = "{\\phantom{0}\\underline{9.50}} & \\,$\\pm$\\,0.25"
    assert f"next & {second} & {{---}} &  \\\\" in lines
    assert lines[lines.index(f"next & {second} & {{---}} &  \\\\") - 1] == "\\midrule"
    assert any("\\bfseries 12.3" in line for line in lines)


def test_a_wide_table_spans_both_columns() -> None:
    row: list[Cell] = [Text("a name of a model"), *[Figure(12.34, 2)] * 9]
    wide = Table("t", "t", "C", [Header("Model"), *[Header("Pixel acc. (%)")] * 9], [row])
    assert "\\begin{table*}" in latex(wide)
    assert "{\\shortstack{Pixel\\\\acc. (\\%)}}" in latex(wide)
    assert "\\begin{table}" in latex(table([Text("a"), Figure(1, 1), Figure(2, 1)]))


def test_latex_compiles_with_any_name(tmp_path: Path) -> None:
    require_pdflatex()
    printed = pdf_text(latex(TABLE), tmp_path)
    assert "Output written" in printed
    assert "Overfull \\hbox" not in printed


def named(*names: str) -> str:
    rows: list[list[Cell]] = [[Text(name), Figure(1.5, 2)] for name in names]
    return latex(Table("t", "t", "Caption", [Header("Model"), Header("mIoU")], rows))


LATIN = "".join(map(chr, range(0xA1, 0x180)))
IN_PDFLATEX = (
    LATIN,
    "αβγδεζηθικλμνξοπρσςτυφχψω ΑΒΓΔΘΛΞΠΣΦΨΩ",
    "≤≥≠≈→←∞√∈∑ x₂ x² xⁿ −1 ′",
    "“a” ‘b’ €",
)


@pytest.mark.parametrize("name", IN_PDFLATEX)
def test_letters_that_pdflatex_prints(tmp_path: Path, name: str) -> None:
    text = named(*(one for one in name if one not in NOT_IN_T1))
    assert "% needs \\usepackage{array,booktabs,graphicx,siunitx,textcomp}, " in text
    require_pdflatex()
    printed = pdf_text(text, tmp_path)
    assert "Output written" in printed
    assert "Missing character" not in printed


@pytest.mark.parametrize("name", ["模型一", "дорога", "ไทย", "\U0001f600", "ħ"])
def test_other_letters_are_kept_and_the_file_says_so(name: str) -> None:
    text = named(f"{name} A", "B")
    assert f"{name} A & 1.50" in text
    assert "% needs XeLaTeX or LuaLaTeX" in text
    assert f"letters {''.join(sorted(set(name)))}, such as" in text


def test_xelatex_prints_them(tmp_path: Path) -> None:
    font = "Noto Sans CJK SC"
    fonts = subprocess.run(["fc-list", font], capture_output=True, text=True).stdout
    if shutil.which("xelatex") is None or not fonts:
        pytest.skip(f"needs xelatex and {font} (Debian: texlive-xetex, fonts-noto-cjk)")
    printed = pdf_text(named("模型一", "模型二", "λ≥0.5"), tmp_path, font)
    assert "Output written" in printed
    assert "Missing character" not in printed


def test_no_two_letters_become_one() -> None:
    letters = [chr(code) for code in range(0x21, 0x3000) if chr(code).isprintable()]
    letters = [one for one in letters if unicodedata.normalize("NFC", one) == one]
    shown = {}
    for one in letters:
        shown.setdefault(escape(one), []).append(one)
    same = {text: ones for text, ones in shown.items() if len(ones) > 1}
    assert same == {"$\\mu$": ["µ", "μ"]}  # one letter with two codes
    assert "?" not in escape("".join(letters).replace("?", ""))
    assert escape("a\x00b") == r"a\textbackslash{}x00b"


@pytest.mark.parametrize(("place", "name"), [(0, "a"), (25, "z"), (26, "aa"), (27, "ab")])
def test_letters(place: int, name: str) -> None:
    assert letters(place) == name


def test_equal_footnotes_are_merged() -> None:
    notes = Footnotes()
    assert [notes.add("x"), notes.add("y"), notes.add("x")] == [0, 1, 0]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.004, 2, "0.004"), (0.0, 2, "0.00"), (NAN, 2, "—"), (1234.5, 0, "1234")],
)
def test_numbers(value: float, digits: int, text: str) -> None:
    assert Figure(value, digits).number == text
