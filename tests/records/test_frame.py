import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures import make_results

import bench
from bench.records.seeds import over_seeds


def test_rows_are_tidy(tmp_path: Path) -> None:
    frame = bench.load(make_results(tmp_path))
    assert len(frame) == 2 * 2 * 2 + 1  # models x seeds x evaluations, and a failed case
    assert set(frame["evaluation"].dropna()) == {"val", "train"}
    row = frame[(frame["label"] == "A_1") & (frame["evaluation"] == "val")].iloc[0]
    assert row["miou"] == pytest.approx(0.5)
    assert row["iou/x&y"] == pytest.approx(0.25)
    assert row["model_mb"] == pytest.approx(4.0)
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert failed["reason"] == "it broke | badly"


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"There is no record in {tmp_path}"):
        assert len(bench.load(tmp_path)) == 0


def test_broken_records_are_named_and_passed_over(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    [first, second, *_] = sorted(folder.glob("*/record.json"))
    first.write_text('{"half')
    (second.parent / "eval" / "val.json").write_text("")
    with pytest.warns(UserWarning) as caught:
        frame = bench.load(folder)
    messages = " ".join(str(w.message) for w in caught)
    assert str(first) in messages
    assert str(second.parent / "eval" / "val.json") in messages
    assert frame["id"].nunique() == 4
    assert len(frame) == 2 + 2 + 1 + 1


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    frame = bench.load(make_results(tmp_path))
    merged = over_seeds(frame[frame["status"] == "ok"])
    row = merged[(merged["label"] == "A_1") & (merged["evaluation"] == "val")].iloc[0]
    assert row["num_seeds"] == 2
    assert row["miou"] == pytest.approx(0.55)
    assert row["miou/std"] == pytest.approx(np.std([0.5, 0.6], ddof=1))


def test_seeds_pool_only_within_equal_numerics(tmp_path: Path) -> None:
    folder = make_results(tmp_path)
    for record in folder.glob("*A__*s1*/record.json"):
        content = json.loads(record.read_text())
        content["numerics"]["precision"] = "bf16"
        record.write_text(json.dumps(content))
    merged = over_seeds(bench.load(folder).query("status == 'ok' and evaluation == 'val'"))
    assert sorted(merged["num_seeds"]) == [1, 1, 2]


def test_several_folders(tmp_path: Path) -> None:
    one = make_results(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b" / "other")
    frame = bench.load(tmp_path / "a", str(tmp_path / "b"))
    assert set(frame["suite"]) == {"paper", "other"}
