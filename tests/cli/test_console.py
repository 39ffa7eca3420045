"""What a terminal shows, what --json prints, and how commands end."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from commands import bench
from conftest import ROOT
from rich.console import Console as RichConsole

import bench as package
from bench.cli.app import main
from bench.cli.console import Console
from bench.cli.terminal_table import draw
from bench.errors import Exit
from bench.report.report import report
from bench.report.table import Figure, Header, Table, Text
from bench.runner.result import CaseResult

PUBLISHED = ROOT / "results" / "published" / "camvid_small"


def drawn(table: Table, width: int) -> str:
    out = StringIO()
    draw(table, RichConsole(file=out, width=width, force_terminal=True, color_system=None))
    return out.getvalue()


def small() -> Table:
    return Table(
        kind="summary",
        name="t-summary",
        caption="Shapes, val",
        headers=[Header("Model"), Header("mIoU (%)"), Header("Params (M)", group="Cost")],
        rows=[
            [Text("a_b <x>", notes=(0,)), Figure(12.5, 2, rank="best"), Figure(1.0, 2)],
            [Text("c"), Figure(1.5, 2, spread=0.25), Figure(float("nan"), 2)],
        ],
        card=[("data", "Shapes")],
        notes=["A note."],
        footnotes=["A footnote."],
    )


def test_a_table_is_drawn_without_the_marks_of_markdown() -> None:
    lines = [line.split() for line in drawn(small(), 80).splitlines()]
    assert lines == [
        ["Shapes,", "val"],
        ["Model", "mIoU", "(%)", "Cost", "Params", "(M)"],
        ["─" * 40],
        ["a_b", "<x>ᵃ", "12.50", "1.00"],
        ["c", "1.50", "±", "0.25", "—"],
        ["a", "A", "footnote."],
        ["Protocol:", "data:", "Shapes."],
        ["A", "note."],
        [],
    ]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 160])
def test_narrow_terminals_get_fewer_columns(width: int) -> None:
    [made] = report([PUBLISHED], PUBLISHED.parent)
    for table in made.tables:
        lines = drawn(table, width).splitlines()
        assert max(map(len, lines)) <= width
        rows = [line for line in lines if line.startswith("ENet ")]
        assert len(rows) <= sum(row[0] == Text("ENet") for row in table.rows)
    if width == 30:
        assert "Too narrow for:" in drawn(made.tables[0], width)


def test_a_terminal_gets_drawn_tables_and_a_pipe_markdown() -> None:
    command = [sys.executable, "-m", "bench", "report", str(PUBLISHED), "--table", "summary"]
    command += ["--format", ""]
    leader, follower = pty.openpty()
    env = os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, stdout=follower, env=env) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        process.wait()
    os.close(leader)
    assert "|" not in shown.decode()
    assert "\x1b[1m" in shown.decode()  # bold
    assert "| ENet " in bench("report", PUBLISHED, "--table", "summary", "--format", "").stdout


def test_a_pipe_gets_markdown_whatever_colours_are_forced() -> None:
    args = ("report", PUBLISHED, "--table", "summary", "--format", "")
    assert bench(*args, FORCE_COLOR="1").stdout == bench(*args).stdout


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("a\tb [bold] :smile: \\_")
    assert capsys.readouterr().out == "a\tb [bold] :smile: \\_\n"


def test_version() -> None:
    assert bench("--version").stdout == f"bench {package.__version__}\n"


def test_a_crash_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench.cli.commands.compare as module

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(module, "compare_sides", broken)
    with pytest.raises(SystemExit) as end:
        main(["compare", str(PUBLISHED), str(PUBLISHED)])
    assert end.value.code == Exit.CRASHED
    assert "RuntimeError: planted" in capsys.readouterr().err
    assert Exit.CRASHED not in (Exit.OK, Exit.NEGATIVE)
    assert len({code.value for code in Exit}) == len(Exit.__members__)


def test_a_closed_pipe_is_no_negative_answer(tmp_path: Path) -> None:
    command = f"{sys.executable} -m bench list encoders; echo code $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"({command}) | head -1"], cwd=ROOT, capture_output=True, text=True
    )
    assert "code 141\n" in done.stderr or "code 0\n" in done.stderr


def test_help_is_quick_to_import() -> None:
    code = "import sys; sys.argv = ['bench', '--help']; from bench.__main__ import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += (
        "print([m for m in ('torch', 'numpy', 'pandas', 'pydantic', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--install-completion" in done.stdout


def test_completion_names_the_commands() -> None:
    env = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench ba", "COMP_CWORD": "1"}
    code = "from bench.cli.app import app; app(prog_name='bench')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True
    )
    assert done.stdout.split() == ["baseline"]


def test_lines_of_json_have_the_documented_keys(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    args = ["--out", tmp_path, "--device", "cpu", "--set", "recipe.epochs=1", "--json"]
    suite = write_suite()
    [plan] = bench("run", suite, *args, "--dry-run").stdout.splitlines()
    [line] = bench("run", suite, *args).stdout.splitlines()
    [again] = bench("run", suite, *args).stdout.splitlines()
    docs = (ROOT / "docs" / "python.md").read_text()
    assert list(json.loads(line)) == ["version", *CaseResult.__dataclass_fields__]
    assert json.loads(line)["version"] == json.loads(plan)["version"] == 1
    assert (json.loads(line)["skipped"], json.loads(again)["skipped"]) == (False, True)
    for printed in (plan, line):
        for key in json.loads(printed):
            assert f"`{key}`" in docs
    ci = ROOT / "results" / "baselines" / "ci.json"
    compared = bench("compare", PUBLISHED, ci, "--json", code=Exit.NOTHING_COMPARED)
    for key in json.loads(compared.stdout):
        assert f"`{key}`" in docs
