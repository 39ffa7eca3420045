import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_results, pdf_text, require_pdflatex, write_counts

from bench.errors import UserError
from bench.report.formats.latex import latex
from bench.report.formats.markdown import markdown
from bench.report.group import Choice, slugs
from bench.report.report import report, text
from bench.report.table import Cell, Figure, Table, Text
from bench.report.write import write


def label(cell: Cell) -> str:
    assert isinstance(cell, Text)
    return cell.text


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Table]:
    [made] = report([make_results(tmp_path)], tmp_path)
    return {table.name: table for table in made.tables}


def test_all_kinds_of_tables_are_made(tables: dict[str, Table]) -> None:
    assert list(tables) == [
        "paper-summary",
        "paper-complexity",
        "paper-metrics",
        "paper-per-class",
        "paper-conventions",
        "paper-protocol",
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
    assert label(first[0]) == "A_1"
    assert isinstance(first[1], Figure)
    assert first[1].value == pytest.approx(55)
    assert first[1].spread == pytest.approx(7.07, abs=0.01)
    assert label(second[0]).startswith("<script>")
    assert failed[0] == Text("C, seed 0", (0,))
    assert table.footnotes == ["Failed: it broke | badly"]
    assert label(floor[0]) == "(majority class: x&y)"
    assert isinstance(floor[1], Figure)
    assert floor[1].value == 12.5
    assert any("over 2 seeds" in note for note in table.notes)
    assert any("CPU_1, 2 threads, fp32" in note for note in table.notes)


def test_complexity_counts_parameters_without_gradient(tables: dict[str, Table]) -> None:
    notes = tables["paper-complexity"].footnotes
    assert any("0.25 M of its parameters get no gradient" in note for note in notes)


def test_metrics_show_training_next_to_validation(tables: dict[str, Table]) -> None:
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


def test_a_table_of_the_suite_is_sorted_best_first(tables: dict[str, Table]) -> None:
    table = tables["paper-own"]
    assert table.caption == "Mine & yours"
    assert [h.whole for h in table.headers][1:] == ["Params (M)", "mIoU (%) paper", "mIoU (%) ours"]
    values = [row[3].value for row in table.rows[:2] if isinstance(row[3], Figure)]
    assert values == pytest.approx([70, 55])
    assert table.rows[1][2] == Figure(50, 2, notes=(0,))
    assert table.footnotes == ["Not comparable: another split."]


def test_reported_values_next_to_ours(tables: dict[str, Table]) -> None:
    table = tables["paper-reported"]
    [row] = table.rows
    figures = [cell.value for cell in row if isinstance(cell, Figure)]
    assert figures == pytest.approx([50, 55, 5])
    assert label(row[-1]) == "Somebody 2016"
    assert table.footnotes == ["Not comparable: another split."]


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
    assert label(first.rows[0][0]) == "A_1"
    assert not any("<script>" in label(row[0]) for row in first.rows)
    assert len(set(names)) == len(names)


def test_unfinished_cases_are_counted(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*__B__*/record.json"):
        file.unlink()
    [made] = report([folder], tmp_path)
    assert "2 of 5 cases have not finished" in text(made)


def test_only_failed_cases(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for name in ("A", "B"):
        for file in folder.glob(f"*__{name}__*/record.json"):
            file.unlink()
    [made] = report([folder], tmp_path)
    assert "it broke" in text(made)


def test_writing(tmp_path: Path) -> None:
    made = report([make_results(tmp_path)], tmp_path)
    files = write(made, ["md", "csv"], tmp_path / "out").files
    assert tmp_path / "out" / "paper" / "paper-summary.csv" in files
    assert len(files) == 2 * 8 + 1
    with pytest.raises(UserError, match="Unknown format 'pfd'"):
        write(made, ["pfd"], None)


def changed(folder: Path, model: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change all records of a model."""
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
    marks = [row[5].notes for row in table.rows[:2]]
    assert marks == [(), (0,)]
    assert table.footnotes[0].startswith(
        "Data-bound: 12 % of the time was spent waiting for images"
    )


def history_of(folder: Path, seconds: Sequence[float], reference: Sequence[float]) -> None:
    rows = zip(range(1, 9), seconds, reference, strict=False)
    lines = [f"{epoch},10,{s},{r},{epoch == 1}" for epoch, s, r in rows]
    text = "\n".join(["epoch,steps,seconds,reference_s,warm_up", *lines])
    (folder / "history.csv").write_text(text)


@pytest.mark.parametrize(
    ("seconds", "reference", "mark"),
    [
        ((90, 62, 110, 174), (0.1, 0.01, 0.03, 0.05), "took 62 to 174 s.* 5.0 times as long as at"),
        ((90, 62, 60, 61), (0.1, 0.01, 0.01, 0.011), None),
        ((90, 30, 100, 60), (0.01, 0.01, 0.01, 0.01), "took 30 to 100 s.* 1.0 times"),
        ((90, 62, 60, 61), (0.04, 0.04, 0.04, 0.04), "took.* 4.0 times as long as beside other"),
        ((0.9, 0.1, 0.3, 0.2), (0.1, 0.01, 0.02, 0.05), None),  # too short to be steady
    ],
)
def test_times_of_a_busy_machine_are_marked(
    tmp_path: Path, seconds: Sequence[float], reference: Sequence[float], mark: str | None
) -> None:
    folder = make_results(tmp_path)
    for case in folder.glob("*__B__*"):
        history_of(case, seconds, reference)
    for case in folder.glob("*__A__*"):
        history_of(case, (9, 9, 9, 9), (0.01, 0.01, 0.01, 0.01))
    table = summary(tmp_path)
    assert [row[5].notes for row in table.rows[:2]] == [(), (0,) if mark else ()]
    if mark:
        assert re.search(f"^Busy machine: epochs {mark}", table.footnotes[0])


def test_times_without_a_reference_have_no_mark(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for case in folder.glob("*__B__*"):
        (case / "history.csv").write_text(
            "epoch,steps,seconds,warm_up\n1,10,9,True\n2,10,1,False\n3,10,9,False\n"
        )
    assert not any("Busy" in text for text in summary(tmp_path).footnotes)


@pytest.mark.parametrize(
    ("model", "start"),
    [
        ({"arch": "custom/fcn"}, "random weights"),
        ({"arch": "nets:build"}, "weights from its builder"),
        (
            {"arch": "custom/fcn", "weights": {"part": "model", "source": "a/b.pth"}},
            "weights from b.pth",
        ),
        (
            {"arch": "smp/unet", "weights": {"part": "encoder", "source": "imagenet"}},
            "encoder weights from imagenet, the rest random",
        ),
        (
            {"arch": "nets:build", "weights": {"part": "encoder", "source": "x.pt"}},
            "encoder weights from x.pt, the rest from its builder",
        ),
    ],
)
def test_what_was_scored_without_training_is_said(
    tmp_path: Path, model: dict[str, Any], start: str
) -> None:
    def untrained(record: dict[str, Any]) -> None:
        record["training"] |= {"epochs": 0, "steps": 0, "epoch_s": None}
        record["case"]["recipe"]["epochs"] = 0
        record["case"]["model"] |= model

    folder = make_results(tmp_path)
    changed(folder, "A", untrained)
    table = summary(tmp_path)
    assert f"A_1: {start}, not trained." in table.notes
    notes = [table.footnotes[i] for i in table.rows[0][0].notes]
    assert any("checkpoint: none" in note and "trained on: nothing" in note for note in notes)
    assert "Mean ± standard deviation over 2 seeds." in table.notes  # they differ


def test_one_file_under_several_seeds_counts_once(tmp_path: Path) -> None:
    def untrained(record: dict[str, Any]) -> None:
        record["training"] |= {"epochs": 0, "steps": 0, "epoch_s": None}

    folder = make_results(tmp_path)
    changed(folder, "B", untrained)  # both of its seeds have the same scores
    [made] = report([folder], tmp_path)
    table = summary(tmp_path)
    cell = table.rows[1][1]
    assert isinstance(cell, Figure)
    assert (cell.value, cell.spread_text) == (pytest.approx(70), "")
    assert any("over seeds (2 for A_1; 1 for" in note for note in table.notes)
    trained = [row for row in made.rows.to_dict("records") if row["model"] == "B"]
    assert len({row["seed"] for row in trained}) == 2  # all records are there


def on_gpu(folder: Path, gpus: Sequence[str], threads: Sequence[int]) -> None:
    for seed, (gpu, num) in enumerate(zip(gpus, threads, strict=True)):
        for file in folder.glob(f"*__A__*s{seed}__*/record.json"):
            content = json.loads(file.read_text())
            content["numerics"] = {"device": "cuda", "precision": "bf16", "threads": num}
            content["environment"]["gpu"] = gpu
            file.write_text(json.dumps(content))


def test_threads_do_not_part_the_seeds_of_a_gpu(tmp_path: Path) -> None:
    on_gpu(make_results(tmp_path), ["A100", "A100"], [16, 32])
    table = summary(tmp_path)
    assert [row[0].text for row in table.rows][:2].count("A_1") == 1
    time = table.rows[0][5]
    assert isinstance(time, Figure)
    assert time.value == pytest.approx(10.5)


def test_scores_of_two_gpus_are_pooled_with_a_word_and_times_never(tmp_path: Path) -> None:
    on_gpu(make_results(tmp_path), ["A100", "L4"], [16, 16])
    table = summary(tmp_path)
    score, time = table.rows[0][1], table.rows[0][5]
    assert isinstance(score, Figure)
    assert isinstance(time, Figure)
    assert score.value == pytest.approx(55)
    assert math.isnan(time.value)
    assert (
        "A_1: seeds ran on A100 and L4; their scores are pooled, times and memory are not shown."
    ) in table.notes
    assert not any("Measured on A100 and L4" in note for note in table.notes)


def test_times_of_cases_that_shared_the_machine_are_left_out(tmp_path: Path) -> None:
    changed(make_results(tmp_path), "B", lambda r: r["training"].update(num_sharing=2))
    table = summary(tmp_path)
    times = [row[5].value for row in table.rows[:2] if isinstance(row[5], Figure)]
    assert not math.isnan(times[0])
    assert math.isnan(times[1])
    assert any("No times for models trained while other cases" in note for note in table.notes)


def test_smaller_micro_batches_have_a_note(tmp_path: Path) -> None:
    def halve(record: dict[str, Any]) -> None:
        record["numerics"]["micro_batch"] = 2
        record["case"]["recipe"]["batch_size"] = 8

    changed(make_results(tmp_path), "B", halve)
    notes = summary(tmp_path).notes
    assert any(
        "batches of 8 were split into micro-batches of 2 images; BatchNorm" in n for n in notes
    )


def test_the_card_names_a_checkpoint_chosen_on_the_scored_split(tmp_path: Path) -> None:
    rule = "best mIoU on val (chosen on the split scored)"
    for file in make_results(tmp_path).glob("*/eval/val.json"):
        content = json.loads(file.read_text())
        content["protocol"]["checkpoint"] = rule
        file.write_text(json.dumps(content))
    assert ("checkpoint", rule) in summary(tmp_path).card


def rank(table: Table, row: int, column: int) -> str:
    cell = table.rows[row][column]
    assert isinstance(cell, Figure)
    return cell.rank


def test_bold_is_the_best_and_what_is_not_significantly_different(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    assert [rank(summary(tmp_path), row, 1) for row in (0, 1)] == ["best", "best"]  # seeds differ
    for place in folder.glob("*__A__*/eval/val.npz"):
        write_counts(place, 0.5, 0)
    table = summary(tmp_path)
    assert [rank(table, row, 1) for row in (0, 1)] == ["", "best"]
    assert any(
        "(paired bootstrap over images and variance over seeds, 1000 draws, 95 %). Und" in note
        for note in table.notes
    )
    for seed, place in enumerate(sorted(folder.glob("*__[AB]__*/eval/val.npz"))):
        write_counts(place, 0.7, seed)
    assert [rank(summary(tmp_path), row, 1) for row in (0, 1)] == ["best", "best"]


def test_without_counts_nothing_is_bold(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for place in folder.glob("*__B__*/eval/val.npz"):
        place.unlink()
    table = summary(tmp_path)
    assert [rank(table, row, 1) for row in (0, 1)] == ["", ""]
    assert any(note.startswith("Nothing is bold: <script>") for note in table.notes)


def test_a_table_has_times_of_one_machine_only(tmp_path: Path) -> None:
    changed(make_results(tmp_path), "B", lambda r: r["environment"].update(cpu="CPU_2"))
    table = summary(tmp_path)
    times = [row[5] for row in table.rows[:2] if isinstance(row[5], Figure)]
    assert times[0].value == pytest.approx(10.5)
    assert math.isnan(times[1].value)
    assert "on another machine (CPU_2, 2 threads)" in table.footnotes[times[1].notes[0]]
    [made] = report([tmp_path / "paper"], tmp_path)
    tables = [one for one in made.tables if one.kind == "complexity"]
    assert [len(one.rows) for one in tables] == [1, 1]


def test_rows_of_other_protocols_have_footnotes_in_a_table_of_the_suite(
    tmp_path: Path,
) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*__B__*/eval/val.json"):
        content = json.loads(file.read_text())
        content["protocol"]["size"] = "64x64"
        file.write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    [own] = [one for one in made.tables if one.kind == "own"]
    notes = [own.footnotes[place] for row in own.rows for place in row[0].notes]
    assert notes == ["input: 64x64, whole.", "input: as stored, whole."]
    assert [rank(own, row, 3) for row in (0, 1)] == ["", ""]


@pytest.mark.parametrize(
    ("by", "captions", "names"),
    [
        ("dataset", ["Shapes, val"], ["A_1", "<script>"]),
        ("recipe", ["Shapes, val, default"], ["A_1", "<script>"]),
        ("model", ["A_1, val", "<script>", "C: no case"], ["Shapes, default"]),
    ],
)
def test_by(tmp_path: Path, by: str, captions: list[str], names: list[str]) -> None:
    folder = make_results(tmp_path)
    choice = Choice(kinds=("summary",), by=by)
    [made] = report([folder], tmp_path, choice=choice)
    assert [t.caption.split(" & ")[0][:10] for t in made.tables] == [c[:10] for c in captions]
    for row, name in zip(made.tables[0].rows, names, strict=False):
        assert label(row[0]).startswith(name)


def test_choosing_tables_order_and_reported(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    choice = Choice(kinds=("summary", "own", "reported"), sort="miou", reported=False)
    [made] = report([folder], tmp_path, choice=choice)
    assert [table.kind for table in made.tables] == ["summary", "own"]
    assert label(made.tables[0].rows[0][0]).startswith("<script>")
    assert [h.whole for h in made.tables[1].headers][1:] == ["Params (M)", "mIoU (%)"]
    with pytest.raises(UserError, match="Unknown table 'sumary'. Did you mean 'summary'"):
        report([folder], tmp_path, choice=Choice(kinds=("sumary",)))
    with pytest.raises(UserError, match="Unknown column 'mio'. Did you mean 'miou'"):
        report([folder], tmp_path, choice=Choice(sort="mio"))


def test_conventions_have_a_majority_class_row(tables: dict[str, Table]) -> None:
    table = tables["paper-conventions"]
    assert [h.title for h in table.headers][:3] == ["Model", "official", "absent as 0"]
    floor = table.rows[-1]
    assert label(floor[0]) == "(majority class: x&y)"
    assert floor[1] == Figure(12.5, 2)  # as the record has it
    assert floor[2] == Figure(50.0, 2)  # from the counts: all pixels are x&y, z occurs nowhere
    assert table.rules == {2}


def test_captions_name_changed_settings_and_each_table_lists_them_once(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    content = json.loads((folder / "suite.json").read_text())
    content["settings"] = ["recipe.epochs=1", "limit=8"]
    (folder / "suite.json").write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    for table in made.tables:
        assert table.caption.endswith(" (with changed settings)")
        in_card = ("changed settings", "recipe.epochs=1, limit=8") in table.card
        in_notes = "Changed settings: recipe.epochs=1, limit=8." in table.notes
        assert in_card != in_notes
        assert in_card == bool(table.card)
        assert markdown(table).count("recipe.epochs=1") == 1
    assert {t.kind for t in made.tables if not t.card} == {"complexity", "protocol", "reported"}


def test_changed_settings_of_tables_without_scores(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    content = json.loads((folder / "suite.json").read_text())
    content["settings"] = ["recipe.epochs=1"]
    (folder / "suite.json").write_text(json.dumps(content))
    for name in ("A", "B"):
        for file in folder.glob(f"*__{name}__*/record.json"):
            file.unlink()
    [made] = report([folder], tmp_path)
    [table] = [one for one in made.tables if one.kind == "summary"]
    assert table.caption == "shapes: no case has scores (with changed settings)"
    assert table.notes[0] == "Changed settings: recipe.epochs=1."


def test_a_value_published_on_another_split(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    content = json.loads((folder / "suite.json").read_text())
    content["suite"]["reported"][0]["split"] = "test"
    (folder / "suite.json").write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    [table] = [one for one in made.tables if one.kind == "reported"]
    assert table.footnotes[1] == "Not comparable: published on test, ours on val."


def test_many_classes_become_rows(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    names = [f"class {i}" for i in range(11)]
    for file in folder.glob("*/eval/val.json"):
        content = json.loads(file.read_text())
        content["class_iou"] = dict.fromkeys(names, 0.5)
        file.write_text(json.dumps(content))
        file.with_suffix(".npz").unlink()
    [made] = report([folder], tmp_path)
    [table] = [one for one in made.tables if one.kind == "per_class"]
    assert [label(row[0]) for row in table.rows] == [*names, "mean"]
    assert table.rules == {11}


def test_names_of_files_and_labels_are_plain_and_unique() -> None:
    assert slugs(["A_1", "A-1", "a-1", "../x", "日本", "日本"]) == [
        "A_1",
        "A-1",
        "a-1-2",
        "x",
        "unnamed",
        "unnamed-2",
    ]


def test_names_show_numerics_that_differ(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*__[AB]__*/record.json"):
        content = json.loads(file.read_text())
        content["numerics"]["micro_batch"] = 2 if "__A__default__s1" in str(file) else 8
        file.write_text(json.dumps(content))
    names = [label(row[0]) for row in summary(tmp_path).rows[:2]]
    assert names == ["A_1 (micro batch 8)", "A_1 (micro batch 2)"]


def test_a_score_of_another_evaluation_with_another_protocol_has_a_footnote(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    content = json.loads((folder / "suite.json").read_text())
    column = {"of": "miou", "evaluation": "train", "header": None, "group": ""}
    content["suite"]["tables"]["own"]["columns"].append(column)
    (folder / "suite.json").write_text(json.dumps(content))
    for file in folder.glob("*__B__*/eval/train.json"):
        content = json.loads(file.read_text())
        content["protocol"]["size"] = "32x32"
        file.write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    [own] = [one for one in made.tables if one.kind == "own"]
    notes = [own.footnotes[place] for place in own.rows[0][-1].notes]
    assert notes == ["input: 32x32, whole."]


def test_values_published_on_the_same_split_go_first(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    content = json.loads((folder / "suite.json").read_text())
    [item] = content["suite"]["reported"]
    content["suite"]["reported"].insert(0, item | {"split": "test", "values": {"miou": 0.3}})
    (folder / "suite.json").write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    [own] = [one for one in made.tables if one.kind == "own"]
    assert [cell.value for cell in own.rows[1][2:3] if isinstance(cell, Figure)] == [50]


def test_a_class_missing_from_the_records_is_not_ranked(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    content = json.loads((folder / "suite.json").read_text())
    content["suite"]["tables"]["own"]["columns"][0]["of"] = "iou/disc"
    (folder / "suite.json").write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    assert "own" in {table.kind for table in made.tables}


def test_published_values_of_a_model_on_two_datasets(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in (folder / "suite.json", *folder.glob("*__B__*/record.json")):
        content = json.loads(file.read_text())
        for case in content["cases"] if "cases" in content else [content["case"]]:
            if case["model_name"] == "B":
                case["dataset_name"] = "other"
        if "suite" in content:
            content["suite"]["reported"][0]["case"] = "*"
            content["suite"]["datasets"]["other"] = content["suite"]["datasets"]["shapes"]
        file.write_text(json.dumps(content))
    [made] = report([folder], tmp_path)
    [table] = [one for one in made.tables if one.kind == "reported"]
    assert [label(row[0])[:8] for row in table.rows] == ["A_1", "<script>"]


def test_many_classes_make_no_warning(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*/eval/*.json"):
        content = json.loads(file.read_text())
        content["class_iou"] = {f"class {number}": 0.5 for number in range(150)}
        file.write_text(json.dumps(content))
        file.with_suffix(".npz").unlink()
    [made] = report([folder], tmp_path)
    assert not [note for note in made.notes if "fragmented" in note]
    names = {table.kind for table in made.tables}
    assert "per_class" in names
