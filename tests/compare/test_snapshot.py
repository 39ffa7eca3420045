import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fixtures import make_results

from bench.compare import compare
from bench.compare import snapshot as snapshots
from bench.compare.records import of_records
from bench.compare.snapshot import Snapshot, read_baseline, save
from bench.errors import UserError
from bench.sources import find


def snapshot_of(folder: Path) -> Snapshot:
    [source] = find([folder], folder.parent, ())
    return of_records(source)


def test_a_baseline_is_what_was_saved(tmp_path: Path) -> None:
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


def test_many_counts_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "safetensors" not in text  # weights are known by their content
    read = json.loads(text)["cases"]["camvid__enet__default__s0"]
    assert len(read["epochs"]["image_s"]) == 9
    comparison = compare(read_baseline(tmp_path / "base.json"), snapshot_of(folder), 1.5)
    assert comparison.num_compared == 3
    assert not comparison.failures(strict=True, with_time=True)


@pytest.mark.parametrize("text", ["", "{}", '{"cases": 1}', '{"version": 1, "suite": 3}'])
def test_what_is_no_baseline(tmp_path: Path, text: str) -> None:
    file = tmp_path / "base.json"
    file.write_text(text)
    with pytest.raises(UserError, match="is no baseline"):
        read_baseline(file)


def test_a_baseline_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_baseline(tmp_path / "base.json")
