import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures import MIOU, SUITE, make_results, write_case

from bench.cli.commands.results import remove
from bench.compare.targets import compare_targets
from bench.errors import UserError
from bench.records.record import Resolved, write_resolved
from bench.report.report import Report, report, text
from bench.report.table import Figure, Text
from bench.report.write import write
from bench.suite.expand import expand
from bench.suite.suite import Suite


def miou_of(folder: Path, model: str) -> list[float]:
    """The mIoU of a model in a report on several folders."""
    [made] = report([folder / "a", folder / "b"], folder)
    [table] = [table for table in made.tables if table.kind == "summary"]
    rows = [row for row in table.rows if getattr(row[0], "text", "").startswith(model)]
    return [cell.value for row in rows for cell in row[1:2] if isinstance(cell, Figure)]


def split_in_two(folder: Path) -> None:
    """Put seed 0 of a suite's cases in one folder, seed 1 in the other."""
    one = make_results(folder / "a")
    shutil.copytree(one, folder / "b" / "paper")
    for place, other in (("a", 1), ("b", 0)):
        for case in (folder / place / "paper").glob(f"*__s{other}__*"):
            shutil.rmtree(case)


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text())
    content.update(values)
    file.write_text(json.dumps(content))


def test_folders_of_one_name_are_one_suite(tmp_path: Path) -> None:
    split_in_two(tmp_path)
    assert miou_of(tmp_path, "A_1") == pytest.approx([55])
    [made] = report([tmp_path / "a", tmp_path / "b"], tmp_path)
    assert not made.notes
    assert made.folder == tmp_path / "a" / "paper"


def test_a_case_in_two_places_counts_once_where_they_agree(tmp_path: Path) -> None:
    one = make_results(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b" / "paper")
    for file in (tmp_path / "b").rglob("record.json"):  # times may differ
        change(file, finished="2027-01-01T00:00:00+0000")
    assert miou_of(tmp_path, "A_1") == pytest.approx([55])


def disagreeing(folder: Path) -> None:
    one = make_results(folder / "a")
    shutil.copytree(one, folder / "b" / "paper")
    for case in (folder / "b" / "paper").glob("*__A__*s0__*"):
        change(case / "record.json", finished="2027-01-01T00:00:00+0000")
        scores = json.loads((case / "eval/val.json").read_text())["scores"] | {"miou": 0.9}
        change(case / "eval/val.json", scores=scores)


def test_records_that_do_not_agree(tmp_path: Path) -> None:
    disagreeing(tmp_path)
    with pytest.raises(
        UserError, match="Folders have different scores for 1 case: shapes__A__default__s0.*newest"
    ):
        report([tmp_path / "a", tmp_path / "b"], tmp_path)
    for targets in (("a", "b"), ("b", "a")):
        [made] = report([tmp_path / name for name in targets], tmp_path, prefer="newest")
        [table] = [table for table in made.tables if table.kind == "summary"]
        assert isinstance(table.rows[0][1], Figure)
        assert table.rows[0][1].value == pytest.approx(100 * np.mean([0.9, 0.6]))
        assert any("records was used: shapes__A__default__s0" in note for note in made.notes)


def test_a_copied_folder_is_no_seed(tmp_path: Path) -> None:
    folder = make_results(tmp_path / "a")
    case = next(folder.glob("*__A__*s0__*"))
    shutil.copytree(case, case.with_name(f"{case.name}-copy"))
    (tmp_path / "b").mkdir()
    assert miou_of(tmp_path, "A_1") == pytest.approx([55])


def test_one_name_of_two_recipes_is_two_models(tmp_path: Path) -> None:
    split_in_two(tmp_path)
    for file in (tmp_path / "b").rglob("*.json"):
        file.write_text(file.read_text().replace('"epochs":2', '"epochs":5'))
    suite = tmp_path / "b" / "paper" / "suite.json"
    resolved = Resolved.model_validate_json(
        suite.read_bytes().replace(b'"epochs": 2', b'"epochs": 5')
    )
    for case in resolved.cases:
        for folder in (tmp_path / "b" / "paper").glob(f"{case.name}__*"):
            change(folder / "record.json", id=case.id)
    suite.write_text(resolved.model_dump_json())
    assert miou_of(tmp_path, "A_1") == pytest.approx([50, 60])


def test_records_of_other_data_do_not_agree(tmp_path: Path) -> None:
    one = make_results(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b" / "paper")
    for file in (tmp_path / "b").rglob("val.json"):
        protocol = json.loads(file.read_text())["protocol"] | {"fingerprint": "g"}
        change(file, protocol=protocol)
    with pytest.raises(UserError, match="different scores for 4 cases"):
        report([tmp_path / "a", tmp_path / "b"], tmp_path)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_place_with_more_evaluations_goes_first(tmp_path: Path, order: str) -> None:
    one = make_results(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b" / "paper")
    for file in (tmp_path / "a").rglob("train.json"):
        file.unlink()
    [made] = report([tmp_path / name for name in order], tmp_path)
    assert set(made.rows["evaluation"].dropna()) == {"val", "train"}


def test_newest_whatever_the_clock(tmp_path: Path) -> None:
    disagreeing(tmp_path)
    for name, time in (("a", "2027-01-01T01:00:00+0000"), ("b", "2027-01-01T05:00:00+0900")):
        for file in (tmp_path / name).rglob("record.json"):
            change(file, finished=time)
    [made] = report([tmp_path / "a", tmp_path / "b"], tmp_path, prefer="newest")
    assert made.rows["miou"].max() == pytest.approx(0.7)


def test_folders_of_one_name_within_one_target_stay_apart(tmp_path: Path) -> None:
    one = make_results(tmp_path / "r")
    shutil.copytree(one, tmp_path / "r" / "archive" / "paper")
    for file in (tmp_path / "r" / "archive").rglob("val.json"):
        change(file, scores=json.loads(file.read_text())["scores"] | {"miou": 0.1})
    assert len(report([tmp_path / "r"], tmp_path)) == 2


def test_trained_but_not_scored_is_reported(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for file in folder.glob("*__A__*/eval/*.json"):
        file.unlink()
    [made] = report([folder], tmp_path)
    [table] = [table for table in made.tables if table.kind == "summary"]
    assert "Not scored: run bench evaluate to score its weights" in table.footnotes


def test_a_case_that_failed_in_one_place_only(tmp_path: Path) -> None:
    one = make_results(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b" / "paper")
    for file in (tmp_path / "a").glob("paper/*__B__*/record.json"):
        change(file, status="failed", reason="out of luck")
    assert miou_of(tmp_path, "<script>") == pytest.approx([70])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"suite": {}}', "\x00\xff"])
def test_what_cannot_be_read_is_named_and_passed_over(tmp_path: Path, content: str) -> None:
    folder = make_results(tmp_path)
    broken = sorted(folder.glob("*/record.json"))[0]
    broken.write_text(content)
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "suite.json").write_text(content)
    counts = sorted(folder.glob("*__B__*/eval/val.npz"))[0]
    counts.write_bytes(content.encode())
    [made] = report([tmp_path], tmp_path)
    shown = text(made)
    assert f"{broken} is not a record" in shown
    assert f"{tmp_path / 'other' / 'suite.json'} is not a saved suite" in shown
    assert f"The counts in {counts} cannot be read" in shown


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    (folder / "suite.json").write_text("{")
    with pytest.raises(UserError, match="(?s)No results in .*suite.json is not a saved suite"):
        report([folder], tmp_path)


def test_latency_of_a_profile_on_the_same_machine(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for record in folder.glob("*/record.json"):
        content = json.loads(record.read_text())
        if content["status"] != "ok":
            continue
        profile = {key: content[key] for key in ("id", "case", "environment", "complexity")}
        latency = {"size": [96, 96], "p50_ms": 5, "p95_ms": 6, "images_per_s": 200, "num_runs": 9}
        profile |= {"measured": "now", "num_classes": 6, "latency": latency}
        profile["numerics"] = content["numerics"]
        if content["case"]["model_name"] == "B":
            profile["environment"] = {"cpu": "CPU_2"}
        (record.parent / "profile.json").write_text(json.dumps(profile))
    [made] = report([folder], tmp_path)
    [table] = [table for table in made.tables if table.kind == "complexity"]
    place = [header.title for header in table.headers].index("Latency p50 (ms)")
    values = [row[place].value for row in table.rows if isinstance(row[place], Figure)]
    assert values[0] == 5
    assert pd.isna(values[1])
    assert {t.kind for t in made.tables} >= {"profile"}


def twins(folder: Path) -> tuple[Suite, Path]:
    """Records of one network under three names, which share an id."""
    models = {key: {"arch": "custom/fcn", "label": key} for key in ("zebra", "ape", "newt")}
    changes = {"models": models, "exclude": [], "seeds": [0], "reported": []}
    suite = Suite.model_validate(SUITE | changes)
    cases = expand(suite)
    assert len({case.id for case in cases}) == 1
    for case in cases:
        write_case(folder / "paper", case)
    write_resolved(folder / "paper", Resolved(suite=suite, cases=tuple(cases)))
    return suite, folder / "paper"


def labels(made: Report) -> list[str]:
    [table] = [table for table in made.tables if table.kind == "summary"]
    names = [row[0].text for row in table.rows if isinstance(row[0], Text)]
    return [name for name in names if not name.startswith("(majority")]


@pytest.fixture(autouse=True)
def _more_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("zebra", "ape", "newt"):
        monkeypatch.setitem(MIOU, (key, 0), 0.5)


def test_cases_of_one_id_are_told_apart_by_name(tmp_path: Path) -> None:
    _, folder = twins(tmp_path)
    [made] = report([folder], tmp_path)
    assert labels(made) == ["zebra", "ape", "newt"]  # in the order of the suite
    assert not made.notes
    shutil.rmtree(next(folder.glob("*__ape__*")))
    [made] = report([folder], tmp_path)
    assert labels(made) == ["zebra", "newt"]
    [note] = made.notes
    assert note == ("1 of 3 cases have not finished and have no record: shapes__ape__default__s0.")


def test_a_renamed_model_is_not_in_the_table_twice(tmp_path: Path) -> None:
    suite, folder = twins(tmp_path)
    left = {key: spec for key, spec in suite.models.items() if key != "zebra"}
    renamed = suite.model_copy(update={"models": left})
    write_resolved(folder, Resolved(suite=renamed, cases=tuple(expand(renamed))))
    [made] = report([folder], tmp_path)
    assert labels(made) == ["ape", "newt"]
    assert any("1 record from an earlier version" in note for note in made.notes)
    removed, _ = remove(tmp_path, "", stale=True, failed=False, dry_run=False)
    assert [gone.name.split("__")[1] for gone in removed] == ["zebra"]
    assert labels(report([folder], tmp_path)[0]) == ["ape", "newt"]


def test_twins_in_two_folders_are_merged_by_name(tmp_path: Path) -> None:
    suite, folder = twins(tmp_path / "a")
    other = tmp_path / "b" / "paper"
    shutil.copytree(folder, other)
    for place, gone in ((folder, "ape"), (other, "zebra")):
        shutil.rmtree(next(place.glob(f"*__{gone}__*")))
        left = {key: spec for key, spec in suite.models.items() if key != gone}
        part = suite.model_copy(update={"models": left})
        write_resolved(place, Resolved(suite=part, cases=tuple(expand(part))))
    [made] = report([tmp_path / "a", tmp_path / "b"], tmp_path)
    assert labels(made) == ["zebra", "newt", "ape"]


def test_a_missing_twin_fails_the_gate(tmp_path: Path) -> None:
    _, folder = twins(tmp_path / "a")
    other = tmp_path / "b" / "paper"
    shutil.copytree(folder, other)
    assert compare_targets(folder, other, tmp_path, 1.5)[0].only_base == ()
    shutil.rmtree(next(other.glob("*__ape__*")))
    [made] = compare_targets(folder, other, tmp_path, 1.5)
    assert made.only_base == ("shapes__ape__default__s0",)
    assert made.num_compared == 2


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_dataset_that_cannot_be_imported_does_not_end_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_ids: bool
) -> None:
    (tmp_path / "my_data.py").write_text(
        "from bench.datasets.shapes import Shapes\nclass Mine(Shapes): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    suite = Suite.model_validate(
        SUITE | {"name": "mine", "datasets": {"shapes": {"name": "my_data:Mine"}}}
    )
    cases = expand(suite)
    for case in cases:
        write_case(tmp_path / "results" / "mine", case)
    saved = tmp_path / "results" / "mine" / "suite.json"
    write_resolved(saved.parent, Resolved(suite=suite, cases=tuple(cases)))
    if not with_ids:  # as older versions wrote it
        change(saved, ids=[])
    make_results(tmp_path / "results")
    (tmp_path / "my_data.py").unlink()
    sys.modules.pop("my_data")
    made = report([tmp_path / "results"], tmp_path)
    files = write(made, ["md", "latex", "csv", "html"], tmp_path / "out").files
    names = {file.parent.name for file in files}
    if with_ids:
        assert [one.title for one in made] == ["mine", "paper"]
        assert labels(made[0])[0] == "A_1"
        assert names >= {"mine", "paper"}
    else:
        assert [one.title for one in made] == ["paper"]
        assert any("Skipped" in note and "my_data" in note for note in made[0].notes)
