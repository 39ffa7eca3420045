"""Counts and times of networks without data or training."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import bench
from conftest import ROOT, TINY
from fixtures import make_results

from bench.cli.commands.profile import profile_suite
from bench.cli.console import Console
from bench.errors import Exit, UserError
from bench.records.frame import load_profiles
from bench.records.record import Profile, read_record
from bench.report.report import report, text
from bench.report.table import EMPTY, Header, Text
from bench.runner import profile as profiles
from bench.runner.plan import plan
from bench.runner.profile import Conditions, profile_case
from bench.runner.run_suite import run_planned
from bench.runner.task import Options
from bench.runner.validate import check
from bench.suite.expand import expand
from bench.suite.load import load

CPU = torch.device("cpu")
SMALL = Conditions(size=(64, 64))
TWO = TINY.replace(
    "  enet: {arch: custom/enet}",
    "  enet: {arch: custom/enet}\n  pspnet: {arch: smp/pspnet, encoder: resnet18}",
)
BROKEN = TWO.replace("encoder: resnet18}", "encoder: resnet18, upsampling: 3}")


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "ENOUGH_S", 0.0)


def test_a_profile_says_what_a_trained_record_says(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    file = load(write_suite(), ["recipe.size=[32,32]"])
    [case] = cases = expand(file.suite)
    checked = check(file, cases, {}, need_data=True)
    [planned] = plan(file.suite, cases, tmp_path / "tiny", checked)
    [outcome] = run_planned([planned], Options(device="cpu"))
    assert outcome.status == "ok"
    record = read_record(planned.task.folder)
    assert record is not None
    found = profile_case(case, CPU)
    assert found.complexity == record.complexity | {"size": (32, 32)}
    assert found.num_classes == 6
    assert found.numerics == {
        "device": "cpu",
        "precision": "fp32",
        "threads": torch.get_num_threads(),
        "memory_format": record.numerics["memory_format"],
        "compile": None,
    }
    assert found.latency is not None
    assert found.latency.num_runs == profiles.FEWEST_RUNS
    assert 0 < found.latency.p50_ms <= found.latency.p95_ms
    assert found.latency.images_per_s > 0
    assert found.peak_tflops is not None
    assert found.peak_tflops > 0


def test_without_a_size_counts_are_at_512(write_suite: Callable[..., Path]) -> None:
    [case] = expand(load(write_suite()).suite)
    found = profile_case(case, CPU)
    assert found.complexity["size"] == (512, 512)
    # ENet's 1.969 at 21 classes, less 15 outputs of its last layer
    assert found.complexity["gmacs"] == pytest.approx(
        1.969 - 256 * 256 * 4 * 16 * 15 / 1e9, rel=1e-3
    )
    assert found.latency is not None
    assert found.latency.size == (512, 512)


def test_a_network_that_would_take_too_long_is_not_timed(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    [case] = expand(load(write_suite()).suite)
    monkeypatch.setattr(profiles, "QUICK_GMACS", 0.2)  # 128x128 of 512x512
    monkeypatch.setattr(profiles, "MOST_S", 0.0)
    found = profile_case(case, CPU)
    assert found.latency is None
    assert found.untimed is not None
    assert re.fullmatch(r"one pass would take about \d+ s", found.untimed)
    assert found.complexity["size"] == (512, 512)
    monkeypatch.setattr(profiles, "MOST_S", 1000.0)
    again = profile_case(case, CPU)
    assert again.latency is not None
    assert (again.latency.size, again.untimed) == ((512, 512), None)


def test_the_expected_time_grows_with_the_operations(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    [case] = expand(load(write_suite()).suite)
    ticks = iter(range(1000))
    monkeypatch.setattr(profiles.time, "perf_counter", lambda: next(ticks))  # a pass takes 1 s
    monkeypatch.setattr(profiles, "QUICK_GMACS", 0.2)
    found = profile_case(case, CPU)
    assert found.untimed == "one pass would take about 16 s"  # 512x512 after 128x128


def test_conditions(write_suite: Callable[..., Path]) -> None:
    [case] = expand(load(write_suite()).suite)
    before = torch.get_num_threads()
    asked = Conditions((64, 96), 3, "bf16", 1, memory_format="contiguous")
    found = profile_case(case, CPU, asked)
    assert found.complexity["size"] == (64, 96)
    assert found.latency is not None
    assert (found.latency.size, found.batch_size) == ((64, 96), 3)
    ran = {"precision": "bf16", "threads": 1, "memory_format": "contiguous", "compile": None}
    assert found.numerics == {"device": "cpu"} | ran
    assert torch.get_num_threads() == before
    assert found.latency.images_per_s > 1e3 / found.latency.p95_ms
    with pytest.raises(UserError, match="999 threads: this machine has"):
        profile_case(case, CPU, Conditions(threads=999))
    with pytest.raises(UserError, match="Precision 'tf32' is not supported"):
        profile_case(case, CPU, Conditions(precision="tf32"))


def test_latencies_of_one_size_share_a_column(write_suite: Callable[..., Path]) -> None:
    three = TINY.replace(
        "  enet: {arch: custom/enet}",
        "  a: {arch: custom/enet}\n  b: {arch: custom/enet}\n  c: {arch: custom/enet}",
    )
    folder = write_suite(three).parent / "out"
    profile_suite(folder.parent / "suite.yaml", None, [], "cpu", folder, Console(), [SMALL])
    for name, size in (("b", [32, 32]), ("c", None)):
        [file] = folder.glob(f"*/*__{name}__*/profile.json")
        content = json.loads(file.read_text())
        if size:
            content["latency"]["size"] = size  # as older versions timed large networks
        else:
            content |= {"latency": None, "untimed": "one pass would take about 9 s"}
        file.write_text(json.dumps(content))
    [made] = report([folder / "tiny"], folder)
    [table] = made.tables
    shown = [
        [cell.text if isinstance(cell, Text) else cell.number for cell in row] for row in table.rows
    ]
    p50 = [header.title for header in table.headers].index("p50")
    assert [row[0] for row in shown] == ["a", "b", "c"]
    assert shown[0][p50] != EMPTY
    assert [row[p50] for row in shown[1:]] == [EMPTY, EMPTY]
    assert table.footnotes == [
        "Latency not shown: measured at 32x32.",
        "Not timed: one pass would take about 9 s.",
    ]
    assert "one image of 64x64 at a time" in table.notes[1]
    assert len({row[2] for row in shown}) == 1  # counts stay


def test_seconds_are_as_the_clock_has_them(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(x for i in range(100) for x in (10.0 * i, 10.0 * i + (0.1 if i < 6 else 0.2)))
    monkeypatch.setattr(profiles.time, "perf_counter", lambda: next(ticks))
    [case] = expand(load(write_suite()).suite)
    monkeypatch.setattr(profiles, "QUICK_GMACS", 99.0)
    latency = profile_case(case, CPU).latency  # runs 2 to 6: 0.1 four times, 0.2
    assert latency is not None
    assert latency.p50_ms == pytest.approx(100)
    assert latency.p95_ms == pytest.approx(180)
    assert latency.images_per_s == pytest.approx(5 / 0.6)


def test_the_command(write_suite: Callable[..., Path], tmp_path: Path, capsys) -> None:
    suite = write_suite(TWO.replace("recipe:", "seeds: [0, 1]\nrecipe:\n  size: [64, 64]"))
    assert profile_suite(suite, None, [], "cpu", tmp_path / "out", Console()) == Exit.OK
    printed = capsys.readouterr().out
    assert "[2/2] pspnet" in printed  # one of the two seeds
    folder = tmp_path / "out" / "tiny"
    table = (folder / "report" / "tiny-profile.md").read_text()
    assert "64x64" in table
    assert len(load_profiles(folder)) == 2
    [made] = report([folder], tmp_path / "out")
    assert [t.kind for t in made.tables] == ["profile"]
    assert "0.36" in text(made)
    # the cases still have to be trained
    assert report([suite], tmp_path / "out")[0].tables
    file = load(suite)
    cases = expand(file.suite)
    checked = check(file, cases, {}, need_data=True)
    assert {p.state for p in plan(file.suite, cases, folder, checked)} == {"to do"}


def test_several_ways_stand_in_one_table(
    write_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.models.compiling.BACKEND", "eager")
    text = TINY.replace("custom/enet", "'tests.models.test_compiling:Small'")
    suite, out = write_suite(text), tmp_path / "out"
    words = ("profile", suite, "--size", "64x64", "--device", "cpu", "--out", out)
    bench(*words, "--precision", "bf16", "--memory-format", "contiguous")
    ways = ("--precision", "fp32,bf16", "--memory-format", "contiguous", "--batch-size", "1,2")
    done = bench(*words, *ways, "--compile", "none,default").stdout
    assert "[8/8] enet, bf16 compile-default batch-2: 0.00 M parameters" in done
    [made] = report([out / "tiny"], out)
    [table] = made.tables
    assert [row[1].text for row in table.rows] == [
        *("fp32, 1 image", "fp32, 2 images", "bf16, 1 image", "bf16, 2 images"),
        *("fp32, compiled (default), 1 image", "fp32, compiled (default), 2 images"),
        *("bf16, compiled (default), 1 image", "bf16, compiled (default), 2 images"),
    ]
    assert "1 and 2 images of 64x64 at a time" in table.notes[1]
    achieved, mfu = (table.headers.index(Header(n)) for n in ("Achieved (TFLOP/s)", "MFU (%)"))
    rate, gmacs = (table.headers.index(Header(n)) for n in ("img/s", "MACs (G)"))
    for row in table.rows:
        operations = 2e-3 * row[gmacs].value * row[rate].value
        assert row[achieved].value == pytest.approx(operations)
        assert 0 < row[mfu].value < 150
    for flag, value, said in (
        ("--batch-size", "1,x", "--batch-size takes numbers of images, such as 1,8, not 'x'"),
        ("--precision", "fp3", "Unknown precision 'fp3'. Did you mean 'fp32'"),
        ("--memory-format", "last", "Unknown memory format 'last'"),
        ("--compile", "fast", "Unknown compile 'fast'"),
    ):
        assert said in bench(*words, flag, value, code=2).stderr


def test_lines_of_json(write_suite: Callable[..., Path], tmp_path: Path, capsys) -> None:
    profile_suite(write_suite(), None, [], "cpu", tmp_path, Console(json_lines=True))
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["complexity"]["num_params"] == 363_466


@pytest.mark.parametrize(
    ("size", "counted"),
    [
        ("{longest: 128}", (128, 128)),
        ("{shortest: 96}", (96, 96)),
        ("[64, 96]", (64, 96)),
        ("null", (32, 32)),  # the plan looks at the data, a profile does not
    ],
)
def test_the_plan_and_a_profile_count_at_the_same_size(
    write_suite: Callable[..., Path], size: str, counted: tuple[int, int]
) -> None:
    file = load(write_suite(), [f"recipe.size={size}"])
    [case] = file.cases()
    profile = profile_case(case, CPU).complexity
    [checked] = check(file, [case], {}, need_data=True).values()
    assert checked.facts.size == counted
    if size != "null":
        assert (profile["size"], profile["gmacs"]) == (counted, checked.facts.gmacs)


def test_no_match(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    code = profile_suite(write_suite(), "*unet*", [], "cpu", tmp_path, Console())
    assert code == Exit.NOTHING_MATCHED


def test_a_network_that_does_not_build_is_named_after_the_others(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"suite.yaml:8: models.pspnet: smp/pspnet"):
        profile_suite(write_suite(BROKEN), None, [], "cpu", tmp_path, Console())
    assert len(load_profiles(tmp_path / "tiny")) == 1


def test_the_reason_is_shown_if_no_network_builds(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"models.pspnet: smp/pspnet"):
        profile_suite(write_suite(BROKEN), "*pspnet*", [], "cpu", tmp_path, Console())


def test_profiles_stand_beside_records(tmp_path: Path, write_suite: Callable[..., Path]) -> None:
    folder = make_results(tmp_path)
    [before] = report([folder], tmp_path)
    [case] = expand(load(write_suite()).suite)
    record = read_record(sorted(folder.glob("*/record.json"))[0].parent)
    assert record is not None
    profile = profile_case(case, CPU).model_copy(update={"id": record.id, "case": record.case})
    where = folder / record.case.folder
    where.mkdir(exist_ok=True)
    (where / "profile.json").write_text(profile.model_dump_json())
    [after] = report([folder], tmp_path)
    kinds = [table.kind for table in before.tables]
    assert [table.kind for table in after.tables if table.kind != "profile"] == kinds


def test_a_profile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "case" / "profile.json"
    file.parent.mkdir()
    file.write_text("{")
    with pytest.warns(UserWarning, match="profile.json is not a profile"):
        assert load_profiles(tmp_path).empty


def test_the_suite_of_every_architecture_is_whole() -> None:
    suite = load(ROOT / "suites" / "complexity.yaml").suite
    from custom_models import ARCHITECTURES

    named = {spec.arch for spec in suite.models.values()}
    assert {f"custom/{name}" for name in ARCHITECTURES} <= named
    assert {case.model_name for case in expand(suite)} == set(suite.models)


def test_published_profiles_are_of_the_suite_as_it_stands() -> None:
    suite = load(ROOT / "suites" / "complexity.yaml").suite
    ids = {case.id for case in expand(suite)}
    files = (ROOT / "results" / "published" / "complexity").glob("*/profile.json")
    assert {Profile.model_validate_json(file.read_bytes()).id for file in files} == ids
