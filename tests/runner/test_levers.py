"""Precision, memory format and compilation: what is asked, what runs, and what is never mixed."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from fixtures import make_results

import bench
from bench.errors import UserError
from bench.machine.device import pick_precision
from bench.machine.numerics import Numerics, read_numerics
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.heartbeat import Interrupted
from bench.records.record import Record, read_evaluations, read_record
from bench.records.seeds import over_seeds
from bench.runner.numerics import Refused, choose_numerics, scoring_numerics
from bench.runner.run_case import run_case
from bench.runner.task import Options, Task
from bench.suite.load import as_settings, load
from bench.suite.recipe import Recipe
from bench.training import loop

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = TINY.replace("custom/enet", "'tests.models.test_compiling:Small'")
OTHERS = {
    "device": "cuda",
    "precision": "bf16",
    "augmentation": "albumentations 1",
    "micro_batch": 3,
    "threads": 5,
    "world_size": 2,
    "memory_format": "channels_last",
    "compile": "default",
    "deterministic": True,
    "cudnn_benchmark": True,
    "fused_optimizer": True,
}


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({"epochs": 1, "size": [64, 64]} | changes)


@pytest.mark.parametrize(
    ("can", "chosen"),
    [
        ({}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_f": True}, "fp32"),
    ],
)
def test_the_rule_of_precision_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, can: dict, chosen: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert pick_precision("auto", CPU) == chosen
    assert choose_numerics(recipe(), CPU, "none", 8, None).precision == chosen


def test_what_is_chosen_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    ran = choose_numerics(recipe(compile="reduce-overhead"), CUDA, "none", 8, None)
    assert ran == Numerics(
        device="cuda",
        precision="bf16",
        micro_batch=8,
        threads=torch.get_num_threads(),
        memory_format="channels_last",
        compile="reduce-overhead",
        cudnn_benchmark=True,
        fused_optimizer=True,
    )
    fixed = choose_numerics(recipe(deterministic=True), CUDA, "none", 8, None)
    assert (fixed.deterministic, fixed.cudnn_benchmark) == (True, False)
    alone = choose_numerics(recipe(size=None, batch_size=1), CUDA, "none", 1, None)
    assert not alone.cudnn_benchmark  # sizes may vary


def test_the_memory_format_that_is_chosen() -> None:
    for asked, takes, ran in (
        ("auto", True, "channels_last"),
        ("auto", False, "contiguous"),
        ("contiguous", True, "contiguous"),
        ("channels_last", True, "channels_last"),
    ):
        chosen = choose_numerics(recipe(memory_format=asked), CPU, "none", 8, None, takes)
        assert chosen.memory_format == ran


def test_a_begun_case_keeps_what_auto_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    old = {"device": "cpu", "precision": "fp32", "micro_batch": 8, "compiled": False}
    begun = replace(read_numerics(old), threads=torch.get_num_threads())
    assert (begun.memory_format, begun.compile, begun.deterministic) == ("contiguous", None, False)
    assert choose_numerics(recipe(), CPU, "none", 8, begun) == begun
    for asked in (
        {"precision": "bf16"},
        {"memory_format": "channels_last"},
        {"compile": "default"},
    ):
        with pytest.raises(Refused, match="The checkpoint was made with"):
            choose_numerics(recipe(**asked), CPU, "none", 8, begun)
    with pytest.raises(Refused, match="The case began in tf32: Precision 'tf32' is not supported"):
        choose_numerics(recipe(), CPU, "none", 8, replace(begun, precision="tf32"))


def test_a_finished_case_is_scored_as_it_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    trained = Numerics("cuda", "bf16", threads=9, memory_format="channels_last")
    scored = scoring_numerics(replace(trained, cudnn_benchmark=True), CPU)
    assert scored == replace(trained, device="cpu", threads=torch.get_num_threads())
    with pytest.raises(Refused, match="The case was trained in tf32: Precision 'tf32' is not"):
        scoring_numerics(replace(trained, precision="tf32"), CPU)


def test_levers_are_in_no_id_unless_they_are_asked_for(write_suite: Callable[..., Path]) -> None:
    def id_of(*settings: str) -> str:
        [case] = load(write_suite(), settings).cases()
        return case.id

    plain = id_of()
    assert id_of("recipe.memory_format=auto", "recipe.compile=false") == plain
    asked = {id_of("recipe.memory_format=contiguous"), id_of("recipe.compile=default")}
    assert len({plain, *asked}) == 3
    assert id_of("scoring_batch=3") == plain
    with pytest.raises(ValueError, match="leave memory: checkpoint out"):
        recipe(compile="default", memory="checkpoint")


@pytest.mark.parametrize("name", [field.name for field in fields(Numerics)])
def test_runs_that_differ_in_a_lever_are_never_pooled(tmp_path: Path, name: str) -> None:
    assert OTHERS.keys() == {field.name for field in fields(Numerics)}
    folder = make_results(tmp_path)
    before = over_seeds(bench.load(folder).query("status == 'ok' and evaluation == 'val'"))
    assert sorted(before["num_seeds"]) == [2, 2]
    assert seeds_with(folder, "record.json", name) == [1, 1, 2]


@pytest.mark.parametrize("name", ["device", "precision", "memory_format", "deterministic"])
def test_scores_that_ran_otherwise_are_never_pooled(tmp_path: Path, name: str) -> None:
    folder = make_results(tmp_path)
    assert seeds_with(folder, "eval/val.json", name) == [1, 1, 2]


def seeds_with(folder: Path, file_name: str, name: str) -> list[int]:
    """Change one of the numerics of a seed, and return how many seeds each row pools."""
    [file] = folder.glob(f"*A__*s1*/{file_name}")
    content = json.loads(file.read_text())
    content["numerics"][name] = OTHERS[name]
    file.write_text(json.dumps(content))
    merged = over_seeds(bench.load(folder).query("status == 'ok' and evaluation == 'val'"))
    return sorted(merged["num_seeds"])


def run(folder: Path, text: str = SMALL, **settings: object) -> CaseFolder:
    (folder / "suite.yaml").write_text(text)
    given = {name.replace("__", "."): value for name, value in settings.items()}
    [result] = bench.run(folder / "suite.yaml", out=folder / "out", settings=given, device="cpu")
    assert result.status == "ok", result.reason
    return CaseFolder(Path(result.folder))


def record_of(folder: CaseFolder) -> Record:
    record = read_record(folder.path)
    assert record is not None
    return record


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    return run(tmp_path_factory.mktemp("plain"))


def test_a_compiled_case_has_the_numbers_of_a_plain_one(
    plain: CaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.models.compiling.BACKEND", "eager")
    fast = run(tmp_path, recipe__compile="default")
    one, two = read_weights(plain.weights), read_weights(fast.weights)
    assert all(torch.equal(one[key], two[key]) for key in one)
    scores = [[e.scores for e in read_evaluations(f.path)] for f in (plain, fast)]
    assert scores[0] == scores[1]
    record, before = record_of(fast), record_of(plain)
    assert (record.numerics["compile"], before.numerics["compile"]) == ("default", None)
    assert record.id != before.id
    assert record.training is not None
    assert before.training is not None
    assert before.training.compile_s is None
    assert record.training.compile_s is not None
    assert record.training.compile_s > 0
    # Without recipe.size, the stored sizes of the images may vary: they are scored as written.
    assert [e.numerics["compile"] for e in read_evaluations(fast.path)] == [None, None]


def test_a_compiled_case_continues_unnoticed(
    plain: CaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.models.compiling.BACKEND", "eager")
    monkeypatch.setattr("bench.training.loop.set_learning_rate", stopping_at(6))
    (tmp_path / "suite.yaml").write_text(SMALL)
    asked = {"recipe.compile": "default"}
    [case] = load(tmp_path / "suite.yaml", as_settings(asked)).cases()
    folder = CaseFolder(tmp_path / "out" / case.folder)
    suite = load(tmp_path / "suite.yaml", as_settings(asked)).suite
    task = Task.of(suite, case, folder.path)
    assert run_case(task, Options(device="cpu")).status == "interrupted"
    assert run_case(task, Options(device="cpu")).status == "ok"
    record = record_of(folder)
    assert record.training is not None
    assert record.training.resumed == 1
    one, two = read_weights(plain.weights), read_weights(folder.weights)
    assert all(torch.equal(one[key], two[key]) for key in one)


def stopping_at(step: int) -> Callable[..., None]:
    """Return a stand-in for setting the learning rate that is interrupted once."""
    real, steps = loop.set_learning_rate, iter(range(1000))

    def set_or_stop(*args: Any) -> None:
        if next(steps) == step:
            raise Interrupted("planted")
        real(*args)

    return set_or_stop


def test_scoring_at_one_size_is_compiled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.models.compiling.BACKEND", "eager")
    asked = {"recipe__compile": "default", "recipe__size": [32, 32], "scoring_batch": 3}
    found = read_evaluations(run(tmp_path, **asked).path)
    assert [e.numerics["compile"] for e in found] == ["default", "default"]
    assert [e.batch_size for e in found] == [3, 3]


def test_the_batch_of_scoring_changes_no_count(plain: CaseFolder, tmp_path: Path) -> None:
    other = run(tmp_path, scoring_batch=5)
    assert record_of(other).id == record_of(plain).id
    ours, theirs = (read_evaluations(folder.path) for folder in (plain, other))
    assert [e.batch_size for e in ours] == [4, 4]
    assert [e.batch_size for e in theirs] == [5, 5]
    for one, two in zip(ours, theirs, strict=True):
        assert two.scores == pytest.approx(one.scores, abs=1e-6)


def test_comparing_says_which_levers_differ_and_leaves_times_out(
    plain: CaseFolder, tmp_path: Path
) -> None:
    other = run(tmp_path, text=SMALL.replace("fp32", "fp32\n  memory_format: contiguous"))
    [found] = bench.compare(plain.path.parent, other.path.parent.parent / "tiny")
    assert any("memory_format" in text for text in found.ran.values())
    times = [one for one in found.findings if one.kind == "time"]
    assert times
    [time] = times
    assert time.verdict == "not compared"
    assert "different machines or settings: " in time.bound


def test_a_network_that_needs_contiguous_images_says_so(
    write_suite: Callable[..., Path],
) -> None:
    text = TINY.replace("custom/enet", "'tests.models.test_memory_format:Views'")
    suite = write_suite(text.replace("epochs: 2", "epochs: 1\n  memory_format: channels_last"))
    with pytest.raises(UserError, match="memory_format: .*Views does not run in channels_last"):
        bench.run(suite, out=suite.parent / "out", device="cpu")
    [result] = bench.run(
        suite, out=suite.parent / "out", device="cpu", settings={"recipe.memory_format": "auto"}
    )
    assert record_of(CaseFolder(Path(result.folder))).numerics["memory_format"] == "contiguous"
