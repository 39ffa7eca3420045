import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fixtures import make_results

from bench.compare import snapshot as snapshots
from bench.compare.compare import compare
from bench.compare.records import of_records
from bench.compare.snapshot import Snapshot, read_baseline, save
from bench.errors import UserError
from bench.records.sources import find

WHOLE = {"suite": "s", "made": "now"}
CASE = {
    **{"id": "i", "label": "m", "model": ["d", "m", "r"], "seed": 0, "status": "ok"},
    **{"asked": {}, "software": {}},
}


def snapshot_of(folder: Path) -> Snapshot:
    [source] = find([folder], folder.parent, ())
    return of_records(source)


def test_a_baseline_is_read_as_it_was_saved(tmp_path: Path) -> None:
    made = snapshot_of(make_results(tmp_path))
    save(made, tmp_path / "base.json")
    read = read_baseline(tmp_path / "base.json")
    assert list(read.cases) == [f"shapes__{m}__default__s{s}" for m in "AB" for s in (0, 1)] + [
        "shapes__C__default__s0"
    ]
    for name, case in made.cases.items():
        for key, scored in case.evaluations.items():
            kept = read.cases[name].evaluations[key]
            assert kept.totals == scored.totals
            if key in made.reported:
                assert np.array_equal(kept.per_image, scored.per_image)
            else:
                assert kept.per_image is None


def test_large_counts_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshot_of(make_results(tmp_path))
    monkeypatch.setattr(snapshots, "MOST_SAVED", 40 * 4 * 2 - 1)
    save(made, tmp_path / "base.json")
    read = read_baseline(tmp_path / "base.json")
    scored = read.cases["shapes__A__default__s0"].evaluations["val"]
    assert scored.per_image is None
    assert scored.totals is not None
    assert made.cases["shapes__A__default__s0"].evaluations["val"].per_image is not None


def test_real_records_make_small_files_without_paths(tmp_path: Path) -> None:
    folder = ROOT / "results" / "published" / "camvid_small"
    save(snapshot_of(folder), tmp_path / "base.json")
    text = (tmp_path / "base.json").read_text()
    assert len(text) < 100_000
    assert str(ROOT) not in text
    assert "safetensors" not in text  # weights are identified by content
    read = json.loads(text)["cases"]["camvid__enet__default__s0"]
    assert len(read["epochs"]["image_s"]) == 9
    comparison = compare(read_baseline(tmp_path / "base.json"), snapshot_of(folder), 1.5)
    assert comparison.num_compared == 3
    assert not comparison.failures(strict=True, with_time=False)
    timed = comparison.failures(strict=True, with_time=True)  # the history has no reference time
    assert [one.figure for one in timed] == ["time per image"] * 3


SCORED = {"protocol": {}, "scores_version": 1, "classes": ["a", "b"], "scores": {}}
EDITED = (
    {"version": 2},
    {"unknown": 1},
    {"cases": {"x": CASE | {"evaluations": {"val": SCORED | {"totals": [[1, 2]] * 3}}}}},
    {"cases": {"x": CASE | {"epochs": {"image_s": [1.0], "reference_s": [0.0]}}}},
    {"cases": {"x": CASE | {"epochs": {"image_s": [1.0], "reference_s": [1.0, 2.0]}}}},
)
BROKEN = ["", "{}", '{"cases": 1}', *(json.dumps(WHOLE | edited) for edited in EDITED)]


@pytest.mark.parametrize("text", BROKEN)
def test_files_that_are_not_baselines(tmp_path: Path, text: str) -> None:
    file = tmp_path / "base.json"
    file.write_text(text)
    with pytest.raises(UserError, match="is not a baseline"):
        read_baseline(file)


def test_a_missing_baseline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_baseline(tmp_path / "base.json")


def test_an_unedited_baseline_is_one(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(json.dumps(WHOLE | {"cases": {"x": CASE}}))
    assert list(read_baseline(tmp_path / "base.json").cases) == ["x"]


@pytest.mark.parametrize("rest", [b"\xff\xfe", b"3,x", b"3,135,x,1,1,1,1,1,1,False\n"])
def test_a_damaged_history_affects_only_the_times(tmp_path: Path, rest: bytes) -> None:
    folder = Path(shutil.copytree(ROOT / "results/published/camvid_small", tmp_path / "c"))
    [file] = folder.glob("*__enet__*/history.csv")
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"\n3,") + 1] + rest)
    with pytest.warns(UserWarning, match="history.csv is damaged"):
        case = snapshot_of(folder).cases["camvid__enet__default__s0"]
    assert case.facts
    assert not case.epochs.image_s


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("images_per_s", "0"),
        ("images_per_s", "-1"),
        ("images_per_s", "inf"),
        ("reference_s", "0"),
        ("peak_memory_mib", "-1"),
    ],
)
def test_impossible_times_are_left_out(tmp_path: Path, column: str, value: str) -> None:
    folder = Path(shutil.copytree(ROOT / "results/published/camvid_small", tmp_path / "c"))
    [file] = folder.glob("*__enet__*/history.csv")
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = [{**row, "reference_s": "1"} for row in rows]  # these records are older than it
    rows[3][column] = value
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.warns(UserWarning, match="missing or not positive"):
        case = snapshot_of(folder).cases["camvid__enet__default__s0"]
    assert case.facts
    assert not case.epochs.image_s
