"""The commands `compare` and `baseline`, on the published records."""

import json
import shutil
from pathlib import Path

import pytest
from commands import bench
from conftest import ROOT

from bench.errors import Exit

PUBLISHED = ROOT / "results" / "published" / "camvid_small"
ENET = "camvid__enet__default__s0"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the published records, as if from a new run."""
    return Path(shutil.copytree(PUBLISHED, tmp_path / "results" / "camvid_small"))


def change(folder: Path, file: str, old: str, new: str) -> None:
    [found] = folder.glob(f"{ENET}*/{file}")
    text = found.read_text()
    assert old in text
    found.write_text(text.replace(old, new, 1))


def test_equal_records(copy: Path) -> None:
    done = bench("compare", PUBLISHED, "--results", copy.parent)
    assert done.stdout == (
        "**bench compare camvid_small: passed, 3 cases compared, nothing worse**\n\n"
        "- Peak memory: 1.00 times the base's (3 models).\n"
        "- Not compared: time per image (no reference time was measured): "
        "camvid__fcn__default__s0, camvid__enet__default__s0, camvid__unet-lite0__default__s0.\n\n"
    )
    line = bench("compare", PUBLISHED, copy, "--gate", "--line").stdout
    assert line == "bench compare camvid_small: passed, 3 cases compared, nothing worse\n"


def test_what_is_worse_is_shown_with_case_figure_and_bound(copy: Path) -> None:
    change(copy, "record.json", '"num_params": 36', '"num_params": 35')
    done = bench("compare", PUBLISHED, copy, code=Exit.NEGATIVE)
    first, _, rest = done.stdout.partition("\n\n")
    assert first.startswith("**bench compare camvid_small: FAILED, 3 cases compared, 1 failure: ")
    assert f"{ENET}, parameters, 36" in first
    header, _, row = rest.splitlines()[:3]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        *("Verdict", "Case", "Figure", "Base → new", "Bound")
    ]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert (cells[0], cells[1], cells[4]) == ("**worse**", ENET, "must be equal")
    [line] = bench("compare", PUBLISHED, copy, "--json", code=Exit.NEGATIVE).stdout.splitlines()
    found = json.loads(line)
    assert found["passed"] is False
    [failure] = found["failures"]
    assert (failure["case"], failure["kind"], failure["figure"]) == (ENET, "fact", "parameters")


def test_a_case_on_one_side_is_listed_and_fails_only_the_gate(copy: Path) -> None:
    [folder] = copy.glob(f"{ENET}*")
    shutil.rmtree(folder)
    assert f"Only in the base: {ENET}." in bench("compare", PUBLISHED, copy).stdout
    assert f"Only in the new records: {ENET}." in bench("compare", copy, PUBLISHED).stdout
    gated = bench("compare", PUBLISHED, copy, "--gate", code=Exit.NEGATIVE).stdout
    assert f"1 failure: {ENET}, record, present → missing" in gated


def test_different_data_is_not_compared_and_fails_the_gate(copy: Path) -> None:
    change(copy, "eval/test.json", "ec47eae6", "00000000")
    plain = bench("compare", PUBLISHED, copy).stdout
    assert "nothing worse (scores of 1 case not comparable)" in plain
    gated = bench("compare", PUBLISHED, copy, "--gate", code=Exit.NEGATIVE).stdout
    assert "scored differently: fingerprint ec47eae6" in gated


def test_nothing_compared_has_its_own_exit_code(tmp_path: Path) -> None:
    for more in ([], ["--gate"], ["--line"]):
        done = bench("compare", PUBLISHED, "--results", tmp_path, *more, code=Exit.NOTHING_COMPARED)
        assert "nothing was compared" in done.stdout
    shutil.copytree(PUBLISHED, tmp_path / "camvid_small@limit-4")
    done = bench("compare", PUBLISHED, "--results", tmp_path, code=Exit.NOTHING_COMPARED)
    assert "It has camvid_small@limit-4: name one." in done.stdout


def test_several_suites_are_compared_by_name(copy: Path) -> None:
    lines = bench("compare", PUBLISHED.parent, copy.parent, "--line").stdout.splitlines()
    assert lines[0].startswith("bench compare camvid_small: passed")
    assert lines[1] == "bench compare complexity: nothing was compared"
    failed = bench("compare", PUBLISHED.parent, copy.parent, "--gate", "--line", code=Exit.NEGATIVE)
    assert "complexity: nothing was compared" in failed.stdout


def test_networks_that_were_only_profiled(tmp_path: Path) -> None:
    folder = PUBLISHED.parent / "complexity"
    copied = shutil.copytree(folder, tmp_path / "complexity")
    assert "passed, 30 cases compared" in bench("compare", folder, copied, "--gate").stdout


def test_two_folders_of_one_suite_are_ambiguous(copy: Path, tmp_path: Path) -> None:
    shutil.copytree(copy, tmp_path / "results" / "more" / "camvid_small")
    done = bench("compare", PUBLISHED, copy.parent, code=Exit.USAGE)
    assert "has two folders named camvid_small" in done.stderr


def test_what_the_new_side_lacks_fails_the_gate(copy: Path) -> None:
    [counts] = copy.glob(f"{ENET}*/eval/test.npz")
    counts.unlink()
    gated = bench("compare", PUBLISHED, copy, "--gate", code=Exit.NEGATIVE).stdout
    assert f"1 failure: {ENET}, pixels of test, the new record has no counts" in gated
    counts.with_suffix(".json").unlink()
    gated = bench("compare", PUBLISHED, copy, "--gate", code=Exit.NEGATIVE).stdout
    assert f"{ENET}, test, the new record has no such evaluation" in gated


def test_a_relaxed_gate_fails(copy: Path, tmp_path: Path) -> None:
    strict = Path(shutil.copytree(copy, tmp_path / "strict" / "camvid_small"))
    file = strict / "suite.json"
    content = json.loads(file.read_text())
    content["suite"]["gate"] = {"floors": [{"case": "*", "values": {"miou": 0.2}}]}
    file.write_text(json.dumps(content))
    assert "the suite's gate has changed: floors" in bench("compare", strict, copy).stdout
    assert "gate" in bench("compare", strict, copy, "--gate", "--line", code=Exit.NEGATIVE).stdout
    assert "passed" in bench("compare", copy, strict, "--gate", "--line").stdout


def test_the_gate_of_times_needs_times(copy: Path) -> None:
    line = bench("compare", PUBLISHED, copy, "--gate-time", "--line", code=Exit.NEGATIVE).stdout
    assert "time per image, no reference time was measured" in line


def test_different_numerics_are_shown(copy: Path) -> None:
    change(copy, "record.json", '"precision": "fp32"', '"precision": "bf16"')
    done = bench("compare", PUBLISHED, copy).stdout
    assert f"Different numerics: precision fp32 → bf16: {ENET}." in done


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere does not exist; name a baseline (.json), a suite (.yaml) or"),
        (["nowhere.json"], "nowhere.json does not exist"),
        (["constraints.txt"], "neither a suite (.yaml) nor a folder"),
        (["tests"], "No results in tests"),
        ([PUBLISHED, "nowhere"], "nowhere does not exist"),
        ([PUBLISHED, "--results", PUBLISHED.parent], "would be compared with itself"),
        ([PUBLISHED, PUBLISHED], "would be compared with itself"),
        ([PUBLISHED.parent, PUBLISHED], "would be compared with itself"),
        ([PUBLISHED, "--factor", "0.5"], "The factor must be greater than 1, such as 1.5, not 0.5"),
        ([PUBLISHED, "--factor", "nan"], "The factor must be greater than 1, such as 1.5, not nan"),
        ([PUBLISHED, "--json", "--line"], "Give --json or --line, not both"),
    ],
)
def test_bad_arguments(args: list[object], message: str) -> None:
    assert message in bench("compare", *args, code=Exit.USAGE).stderr


def test_baselines_are_saved_and_shown(copy: Path, tmp_path: Path) -> None:
    done = bench("baseline", "save", copy, "--results", copy.parent)
    file = copy.parent / "baselines" / "camvid_small.json"
    assert f"Wrote {file} (" in done.stdout
    shown = bench("baseline", "show", "--results", copy.parent).stdout
    assert f"{file}: 3 cases of camvid_small, saved 20" in shown
    assert "test 23.07 %" in shown
    assert bench("compare", file, "--results", copy.parent, "--gate").stdout.startswith("**")
    part = tmp_path / "part.json"
    bench("baseline", "save", copy, "--out", part, "--filter", "*enet*")
    assert "passed, 1 case compared" in bench("compare", part, copy, "--line").stdout


def test_a_baseline_passes_its_own_gate(copy: Path) -> None:
    content = json.loads((copy / "suite.json").read_text())
    content["suite"]["gate"] = {"floors": [{"case": "*enet*", "values": {"miou": 0.9}}]}
    (copy / "suite.json").write_text(json.dumps(content))
    done = bench("baseline", "save", copy, code=Exit.USAGE)
    assert f"{ENET}, mIoU, test: 23.07 → 23.07 %: below the minimum of 90.00 %" in done.stderr
    bad = bench("baseline", "save", PUBLISHED, "--out", copy / "base.txt", code=Exit.USAGE)
    assert "A baseline is a .json file" in bad.stderr


def test_a_baseline_needs_finished_cases(copy: Path) -> None:
    change(copy, "record.json", '"status": "ok"', '"status": "failed"')
    done = bench("baseline", "save", copy, code=Exit.USAGE)
    assert f"failed: {ENET}" in done.stderr
    [folder] = copy.glob(f"{ENET}*")
    shutil.rmtree(folder)
    assert f"without a record: {ENET}" in bench("baseline", "save", copy, code=2).stderr
    assert "No baselines in" in bench("baseline", "show", "--results", copy, code=2).stderr
