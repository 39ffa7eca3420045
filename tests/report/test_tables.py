import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_results, pdf_text, require_pdflatex

from bench.errors import UserError
from bench.report import report, text, write
from bench.report.formats import Figure, Table, latex


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Table]:
    [made] = report([make_results(tmp_path)], tmp_path)
    return {table.name: table for table in made.tables}


def test_the_tables_there_are(tables: dict[str, Table]) -> None:
    assert list(tables) == [
        "paper-summary",
        "paper-complexity",
        "paper-metrics",
        "paper-per-class",
        "paper-own",
        "paper-reported",
    ]


def test_summary(tables: dict[str, Table]) -> None:
    table = tables["paper-summary"]
    titles = [header.title for header in table.headers]
    assert titles == [
        "Model",
        "mIoU (%)",
        "Pixel acc. (%)",
        "Params (M)",
        "Model size (MB)",
        "Time/epoch (s)",
    ]
    first, second, failed, floor = table.rows
    assert first[0] == "A_1"
    assert isinstance(first[1], Figure)
    assert first[1].value == pytest.approx(55)
    assert first[1].spread == pytest.approx(7.07, abs=0.01)
    assert str(second[0]).startswith("<script>")
    assert failed[0] == "C, seed 0: failed (it broke | badly)"
    assert floor[0] == "(always x&y)"
    assert isinstance(floor[1], Figure)
    assert floor[1].value == 12.5
    assert any("over 2 seeds" in note for note in table.notes)
    assert any("CPU_1, 2 threads, fp32" in note for note in table.notes)


def test_complexity_names_what_gets_no_gradient(tables: dict[str, Table]) -> None:
    notes = tables["paper-complexity"].notes
    assert any("0.25 M of its parameters get no gradient" in note for note in notes)


def test_metrics_lay_training_beside_validation(tables: dict[str, Table]) -> None:
    headers = tables["paper-metrics"].headers
    assert [h.group for h in headers] == ["", *["train"] * 6, *["val"] * 6]
    assert [h.title.split(" (")[0] for h in headers[1:7]] == [
        "Dice",
        "F1",
        "mIoU",
        "Pixel acc.",
        "Sensitivity",
        "Loss",
    ]


def test_per_class(tables: dict[str, Table]) -> None:
    table = tables["paper-per-class"]
    assert [h.title for h in table.headers] == ["Model", "x&y", "z", "mean"]
    cell = table.rows[0][2]
    assert isinstance(cell, Figure)
    assert math.isnan(cell.value)


def test_a_suites_own_table_is_ordered_best_first(tables: dict[str, Table]) -> None:
    table = tables["paper-own"]
    assert table.caption == "Mine & yours"
    values = [row[2].value for row in table.rows[:2] if isinstance(row[2], Figure)]
    assert values == pytest.approx([70, 55])


def test_reported_beside_ours(tables: dict[str, Table]) -> None:
    table = tables["paper-reported"]
    [row] = table.rows
    figures = [cell.value for cell in row if isinstance(cell, Figure)]
    assert figures == pytest.approx([50, 55, 5])
    assert row[-2:] == ["Somebody 2016", "1"]
    assert table.notes == ["1: another split."]


def test_every_table_compiles(tables: dict[str, Table], tmp_path: Path) -> None:
    require_pdflatex()
    everything = "\n".join(latex(table) for table in tables.values())
    printed = pdf_text(everything, tmp_path)
    assert "Output written" in printed
    assert "Overfull \\hbox" not in printed


def test_scores_of_two_protocols_do_not_share_a_table(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*__B__*/eval/val.json"):
        content = json.loads(file.read_text())
        content["protocol"]["size"] = "64x64"
        file.write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    names = [table.name for table in made.tables]
    assert {"paper-summary", "paper-summary-2"} <= set(names)
    first = next(table for table in made.tables if table.name == "paper-summary")
    assert [row[0] for row in first.rows][:1] == ["A_1"]
    assert not any("<script>" in str(row[0]) for row in first.rows)
    assert len(set(names)) == len(names)


def test_cases_without_a_record_are_named(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*__B__*/record.json"):
        file.unlink()
    [made] = report([folder], tmp_path)
    assert "2 of 5 cases have no record" in text(made)


def test_only_failed_cases(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for name in ("A", "B"):
        for file in folder.glob(f"*__{name}__*/record.json"):
            file.unlink()
    [made] = report([folder], tmp_path)
    assert "it broke" in text(made)


def test_writing(tmp_path: Path) -> None:
    made = report([make_results(tmp_path)], tmp_path)
    files = write(made, ["md", "csv"], tmp_path / "out")
    assert tmp_path / "out" / "paper" / "paper-summary.csv" in files
    assert len(files) == 12
    with pytest.raises(UserError, match="Unknown format 'pfd'"):
        write(made, ["pfd"], None)


def changed(folder: Path, model: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the records of a model."""
    for file in folder.glob(f"*__{model}__*/record.json"):
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


def summary(tmp_path: Path) -> Table:
    [made] = report([tmp_path / "paper"], tmp_path)
    [table] = [table for table in made.tables if table.name == "paper-summary"]
    return table


def test_a_data_bound_time_is_marked(tmp_path: Path) -> None:
    changed(make_results(tmp_path), "B", lambda r: r["training"].update(data_wait_share=0.123))
    table = summary(tmp_path)
    marks = [row[5].mark for row in table.rows[:2] if isinstance(row[5], Figure)]
    assert marks == ["", "†"]
    [note] = [note for note in table.notes if "Data-bound" in note]
    assert note.startswith("† Data-bound: training waited for images more than 5 % of the time (")
    assert "12 %)" in note
    assert "†" in text(report([tmp_path / "paper"], tmp_path)[0], [table])
    require_pdflatex()
    assert "\\textdagger{}" in latex(table)
    pdf_text(latex(table), tmp_path)


def test_times_of_cases_that_shared_the_machine_are_left_out(tmp_path: Path) -> None:
    changed(make_results(tmp_path), "B", lambda r: r["training"].update(num_sharing=2))
    table = summary(tmp_path)
    times = [row[5].value for row in table.rows[:2] if isinstance(row[5], Figure)]
    assert not math.isnan(times[0])
    assert math.isnan(times[1])
    assert any("No times of cases that shared the machine" in note for note in table.notes)


def test_halved_micro_batches_are_told(tmp_path: Path) -> None:
    def halve(record: dict[str, Any]) -> None:
        record["numerics"]["micro_batch"] = 2
        record["case"]["recipe"]["batch_size"] = 8

    changed(make_results(tmp_path), "B", halve)
    notes = summary(tmp_path).notes
    assert any("2 images of a batch of 8 were computed at once; BatchNorm" in n for n in notes)


def test_a_chosen_model_is_told_in_the_caption(tmp_path: Path) -> None:
    rule = "best mIoU on val (chosen on the split scored)"
    for file in make_results(tmp_path).glob("*/eval/val.json"):
        content = json.loads(file.read_text())
        content["protocol"]["checkpoint"] = rule
        file.write_text(json.dumps(content))
    assert summary(tmp_path).caption.endswith(f", checkpoint: {rule}")
