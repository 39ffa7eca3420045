"""Whole cases on tiny images: records, failures, resuming, starting from another case."""

import csv
import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLOCKS, TINY

from bench.datasets.base import IGNORE_INDEX, Dataset
from bench.evaluation.scores import INTERSECTION, TRUTH, scores
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.record import read_evaluations, read_record
from bench.runner.attempt import use_device
from bench.runner.plan import plan
from bench.runner.run_case import evaluate_case, run_case
from bench.runner.run_suite import run_planned
from bench.runner.task import Options, Outcome, Task
from bench.runner.validate import check
from bench.suite.evaluation import Evaluation
from bench.suite.expand import expand
from bench.suite.load import load

Run = Callable[..., list[Outcome]]
Finished = Callable[..., CaseFolder]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a suite given as text and returns the outcomes."""
    return _runs_in(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a function that returns the folder of a finished case; each is run once."""

    @functools.cache
    def run_once(text: str = TINY, **options: object) -> CaseFolder:
        folder = tmp_path_factory.mktemp("finished")
        [outcome] = _runs_in(folder)(text, **options)
        assert outcome.status == "ok"
        return only_folder(folder)

    return run_once


def _runs_in(folder: Path) -> Run:
    def run_text(
        text: str = TINY,
        out: str = "out",
        settings: tuple[str, ...] = (),
        retry_failed: bool = False,
        **options: object,
    ) -> list[Outcome]:
        (folder / "suite.yaml").write_text(text)
        file = load(folder / "suite.yaml", settings)
        cases = expand(file.suite)
        checked = check(file, cases, {}, need_data=True)
        planned = plan(file.suite, cases, folder / out / "tiny", checked)
        chosen = Options(device="cpu", retry_failed=retry_failed, **options)
        return list(run_planned(planned, chosen))

    return run_text


def only_folder(tmp_path: Path, out: str = "out", suite: str = "tiny") -> CaseFolder:
    [folder] = [f for f in (tmp_path / out / suite).iterdir() if f.is_dir()]
    return CaseFolder(folder)


def test_what_a_case_leaves(run: Run, tmp_path: Path) -> None:
    [outcome] = run()
    assert outcome.status == "ok"
    folder = only_folder(tmp_path)
    left = sorted(f.name for f in folder.path.iterdir())
    assert left == [
        "case.json",
        "eval",
        "history.csv",
        "lease.1",
        "log.txt",
        "pictures",
        "record.json",
        "weights.safetensors",
    ]
    record = read_record(folder.path)
    assert record is not None
    assert record.training is not None
    assert (record.training.epochs, record.training.steps) == (2, 8)
    assert record.numerics["precision"] == "fp32"
    assert record.complexity["num_params"] == 363_466
    adam = 2 * 4 * 363_466  # two moments of 4 bytes per parameter, and a step counter per tensor
    assert record.complexity["checkpoint_bytes"] - record.complexity["model_bytes"] - adam < 4096
    assert set(record.fingerprints) == {"train", "val"}
    rows = rows_of(folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) > 0
    assert len(list(folder.pictures.iterdir())) == 4


def test_the_evaluation_of_a_case(run: Run, tmp_path: Path) -> None:
    run()
    folder = only_folder(tmp_path)
    val, train = sorted(read_evaluations(folder.path), key=lambda e: e.num_images)
    assert (val.name, val.num_images, train.name, train.num_images) == ("val", 6, "train", 16)
    with np.load(folder.evaluation("val").with_suffix(".npz")) as counts:
        per_image, confusion = counts["per_image"], counts["confusion"]
    assert per_image.shape == (6, 4, 6)
    assert per_image.dtype == np.uint32
    assert np.array_equal(per_image[:, TRUTH].sum(0), confusion.sum(1))
    assert np.array_equal(per_image[:, INTERSECTION].sum(0), confusion.diagonal())
    assert val.scores["miou"] == pytest.approx(scores(per_image)["miou"])
    assert val.protocol["score_at"] == "stored"
    history = rows_of(folder)
    assert float(history[-1]["select_miou"]) == pytest.approx(val.scores["miou"])


def test_the_same_case_gives_the_same_weights(run: Run, finished: Finished, tmp_path: Path) -> None:
    run(loader_workers=1)
    one, two = read_weights(finished().weights), read_weights(only_folder(tmp_path).weights)
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("cache", "workers"), [("none", 2), ("ram", 1), ("disk", 2), ("disk", 0)])
def test_cache_and_workers_change_no_number(
    run: Run, finished: Finished, tmp_path: Path, cache: str, workers: int
) -> None:
    text = TINY.replace("HorizontalFlip: {p: 0.5}", "affine: {degrees: 30}")
    [outcome] = run(text, loader_workers=workers, cache=cache)
    assert outcome.status == "ok"
    folders = [finished(text, loader_workers=0, cache="none"), only_folder(tmp_path)]
    weights = [read_weights(folder.weights) for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    evaluations = [read_evaluations(folder.path) for folder in folders]
    for one, same in zip(*evaluations, strict=True):
        assert one.scores == same.scores
    loading = [read_record(folder.path).loading for folder in folders]
    assert loading[0]["cache"] == "none"
    assert (loading[1]["cache"], loading[1]["num_workers"]) == (cache, workers)


def test_loading_is_measured_and_recorded(run: Run, tmp_path: Path) -> None:
    run()
    loading = read_record(only_folder(tmp_path).path).loading
    assert loading["cache"] == "disk"
    assert loading["num_workers"] == 0
    assert loading["images_per_s"] > 1


def test_class_weights_by_rule_train(run: Run, tmp_path: Path) -> None:
    [outcome] = run(TINY + "  loss: {name: cross_entropy, class_weights: median_frequency}\n")
    assert outcome.status == "ok"
    [_plain] = run(out="plain")
    losses = [
        read_record(only_folder(tmp_path, out).path).training.loss for out in ("out", "plain")
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    "evaluation",
    [
        {"method": "sliding", "crop": [24, 24], "size": "stored"},
        {"method": "centre_crop", "crop": [16, 16], "size": "stored"},
        {"flip": True, "scales": [0.5, 1.0], "size": {"longest": 48}},
    ],
)
def test_ways_of_evaluating(run: Run, tmp_path: Path, evaluation: dict) -> None:
    asked = {"split": "val"} | evaluation
    [outcome] = run(TINY + f"evaluations: {{other: {json.dumps(asked)}}}\n")
    assert outcome.status == "ok", outcome.reason
    found = {e.name: e for e in read_evaluations(only_folder(tmp_path).path)}
    assert set(found) == {"train", "val", "other"}  # in addition to the reported split and train
    plain, other = found["val"], found["other"]
    assert plain.protocol["method"] == "whole"
    assert other.protocol["method"] == Evaluation.model_validate(asked).description
    assert other.num_images == 6
    assert other.scores["pixel_accuracy"] is not None


def test_finished_cases_are_skipped_until_the_data_changes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    assert run() == []
    monkeypatch.setattr("bench.datasets.shapes.Shapes.version", 99)
    [outcome] = run()
    assert outcome.status == "ok"


def test_a_failed_case_runs_again_if_its_data_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("bench.runner.run_case.run_to_record", _fails)
        [outcome] = run()
    assert outcome.status == "failed"
    [outcome] = run()
    assert "in an earlier run" in str(outcome.reason)
    monkeypatch.setattr("bench.datasets.shapes.Shapes.version", 99)
    [outcome] = run()
    assert outcome.status == "ok"


def _fails(*_: object) -> None:
    raise ValueError("a mask that only some epochs read")


@pytest.mark.parametrize(("recipe", "resumed"), [("", 1), ("  checkpoint: best\n", 0)])
def test_scores_that_choose_an_epoch_are_of_the_same_data(
    run: Run,
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    resumed: int,
) -> None:
    text = TINY.replace("epochs: 2\n", f"epochs: 2\n{recipe}")
    finished()  # decodes the images
    [outcome] = run(text, should_stop=Stops(6))
    assert outcome.status == "interrupted"
    assert only_folder(tmp_path).has_checkpoint
    monkeypatch.setattr("bench.datasets.shapes.Shapes.fingerprint", _other_masks_of("val"))
    [outcome] = run(text)
    assert outcome.status == "ok"
    record = read_record(only_folder(tmp_path).path)
    assert record is not None
    assert record.training is not None
    assert record.training.resumed == resumed


def _other_masks_of(split: str) -> Callable[[Dataset, str], str]:
    fingerprint = Dataset.fingerprint
    return lambda dataset, name: fingerprint(dataset, name)[:: -1 if name == split else 1]


class Stops:
    """Asks to stop at a heartbeat; a stopped case must continue as if nothing had happened."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("beats", [1, 2, 3, 4, 5, 6, 9, 11])
def test_an_interrupted_case_continues_unnoticed(
    run: Run, finished: Finished, tmp_path: Path, beats: int
) -> None:
    whole = finished()  # it also decodes the images
    [outcome] = run(out="cut", should_stop=Stops(beats))
    assert outcome.status == "interrupted"
    assert read_record(only_folder(tmp_path, "cut").path) is None
    [outcome] = run(out="cut")
    assert outcome.status == "ok"
    cut = only_folder(tmp_path, "cut")
    one, two = read_weights(whole.weights), read_weights(cut.weights)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert _timeless(whole) == _timeless(cut)
    record = read_record(cut.path)
    assert record is not None
    assert record.training is not None
    assert record.training.resumed == 1


def rows_of(folder: CaseFolder) -> list[dict[str, str]]:
    return list(csv.DictReader(folder.history.read_text().splitlines()))


def _timeless(folder: CaseFolder) -> object:
    history = [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows_of(folder)]
    return history, [(e.name, e.scores, e.class_iou) for e in read_evaluations(folder.path)]


def test_a_case_resumed_otherwise_stops(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(should_stop=Stops(3))
    monkeypatch.setattr("bench.runner.attempt.BACKEND", "another library")
    [outcome] = run()
    assert outcome.status == "failed"
    assert "made with augmentation" in str(outcome.reason)
    assert read_record(only_folder(tmp_path).path) is None


@pytest.mark.parametrize("num_broken", [1, 2])
def test_a_checkpoint_cut_in_half(
    run: Run,
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_broken: int,
) -> None:
    whole = finished()  # it also decodes the images
    monkeypatch.setattr("bench.training.trainer.CHECKPOINT_EVERY_S", 0.0)
    run(out="cut", should_stop=Stops(9))
    folder = only_folder(tmp_path, "cut")
    for file in (folder.checkpoint, folder.previous)[:num_broken]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    [outcome] = run(out="cut")
    [note] = outcome.notes
    assert note.startswith("last.pt cannot be read (")
    assert note.endswith(("continued from previous.pt, step 4", "restarted")[num_broken - 1])
    record = read_record(folder.path)
    assert record is not None
    assert record.notes == (note,)
    one, two = read_weights(whole.weights), read_weights(folder.weights)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not folder.has_checkpoint


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_good_checkpoint_outlives_a_broken_one(
    run: Run, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("bench.training.trainer.CHECKPOINT_EVERY_S", 0.0)
    settings = ("recipe.epochs=4",)
    one = read_weights(finished(settings=settings).weights)  # also decodes the images
    run(out="cut", settings=settings, should_stop=Stops(9))
    folder = only_folder(tmp_path, "cut")
    whole = folder.checkpoint.read_bytes()
    changed = {
        "cut": whole[: len(whole) // 2],
        "changed": whole.replace(b"optimizer", b"\xff\xfe\x00timizer"),
        "other": b"(lp0\n.",
    }
    folder.checkpoint.write_bytes(changed[damage])

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("bench.training.checkpoint.os.fsync", full)
        [outcome] = run(out="cut", settings=settings)
    assert outcome.status == "stopped"
    assert "No space left" in str(outcome.reason)
    [outcome] = run(out="cut", settings=settings)
    assert outcome.status == "ok"
    record = read_record(folder.path)
    assert record is not None
    assert record.training is not None
    assert record.training.resumed == 1  # from the previous checkpoint, twice
    two = read_weights(folder.weights)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert use_device(Options(device="auto")) == torch.device("cuda")
    assert chosen == []  # torch refuses a device without a number
    use_device(Options(device="cuda:1"))
    assert chosen == [torch.device("cuda:1")]


BROKEN = TINY.replace("enet: {arch: custom/enet}", f"bad: {{arch: '{__name__}:broken'}}")


class Broken(torch.nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, num_classes, 1)
        self.num_calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":
            self.num_calls += 1
            if self.num_calls == 3:
                raise ZeroDivisionError("planted")
        return self.conv(x)


def broken(num_classes: int) -> torch.nn.Module:
    return Broken(num_classes)


def test_a_failure_is_recorded_and_the_rest_goes_on(run: Run, tmp_path: Path) -> None:
    text = BROKEN.replace("models:", "models:\n  enet: {arch: custom/enet}")
    outcomes = run(text.replace("enet: {arch", "zz: {arch"))
    assert [(o.case.model_name, o.status) for o in outcomes] == [("zz", "ok"), ("bad", "failed")]
    [folder] = (tmp_path / "out" / "tiny").glob("*bad*")
    record = read_record(folder)
    assert record is not None
    assert record.status == "failed"
    assert str(record.reason).startswith("ZeroDivisionError: planted (traceback in log.txt)")
    assert "Traceback" in CaseFolder(folder).log.read_text()
    [again] = run(text.replace("enet: {arch", "zz: {arch"))
    assert "in an earlier run; --retry-failed" in str(again.reason)
    [retried] = run(text.replace("enet: {arch", "zz: {arch"), retry_failed=True)
    assert "planted" in str(retried.reason)


def test_a_loss_that_is_not_finite_fails(run: Run) -> None:
    [outcome] = run(settings=("recipe.optimizer={name: sgd, lr: 1e30}",))
    assert outcome.status == "failed"
    assert "training loss is" in str(outcome.reason)


PAIR = TINY.replace(
    "models:",
    "models:\n  child: {arch: custom/enet, init_from: {model: enet, part: stage2}}",
)


def test_init_from_takes_the_part(run: Run, tmp_path: Path) -> None:
    outcomes = run(PAIR.replace("epochs: 2", "epochs: 0"))
    assert [o.case.model_name for o in outcomes] == ["enet", "child"]
    parent, child = (
        read_weights(CaseFolder(next((tmp_path / "out" / "tiny").glob(f"*__{m}__*"))).weights)
        for m in ("enet", "child")
    )
    same = {key for key in parent if torch.equal(parent[key], child[key])}
    assert {key for key in parent if key.startswith("stage2")} <= same


def test_a_failed_parent_blocks_its_child(run: Run, tmp_path: Path) -> None:
    text = BROKEN.replace(
        "models:", "models:\n  child: {arch: custom/enet, init_from: {model: bad}}"
    )
    outcomes = run(text)
    assert [(o.case.model_name, o.status) for o in outcomes] == [
        ("bad", "failed"),
        ("child", "blocked"),
    ]
    [folder] = (tmp_path / "out" / "tiny").glob("*child*")
    record = read_record(folder)
    assert record is not None
    assert record.status == "blocked"


@pytest.mark.parametrize(
    ("keep", "weights", "checkpoint"),
    [("weights", True, False), ("none", False, False), ("all", True, True)],
)
def test_what_is_kept(run: Run, tmp_path: Path, keep: str, weights: bool, checkpoint: bool) -> None:
    run(TINY + f"keep: {keep}\n")
    folder = only_folder(tmp_path)
    assert folder.weights.exists() == weights
    assert folder.checkpoint.exists() == checkpoint


def test_steps_and_accumulation(run: Run, tmp_path: Path) -> None:
    run(settings=("recipe.steps=6", "recipe.accumulate=2", "recipe.validate_every=2"))
    folder = only_folder(tmp_path)
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == ["4", "6"]
    assert rows[0]["select_miou"] == ""
    record = read_record(folder.path)
    assert record is not None
    assert record.numerics["micro_batch"] == 2


def test_an_evaluation_can_be_added_later(
    run: Run, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    run()
    text = TINY + "evaluations: {val: {split: val}, big: {split: test, size: [64, 48]}}\n"
    assert run(text) == []
    file = load(write_suite(text))
    [case] = expand(file.suite)
    folder = tmp_path / "out" / "tiny" / case.folder
    before = (folder / "eval" / "val.json").read_bytes()
    task = Task(case, folder, file.suite.scored, "val", "weights")
    assert evaluate_case(task, Options(device="cpu")).status == "ok"
    found = {e.name: e for e in read_evaluations(folder)}
    assert found["big"].protocol["size"] == "64x48"
    assert found["big"].num_images == 40
    assert (folder / "eval" / "val.json").read_bytes() == before


def test_without_weights_there_is_nothing_to_evaluate(
    run: Run, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    file = load(write_suite())
    [case] = expand(file.suite)
    folder = tmp_path / "out" / "tiny" / case.folder
    task = Task(case, folder, file.suite.scored, "val", "weights")
    reason = evaluate_case(task, Options(device="cpu")).reason
    assert reason == "it has not been trained; bench run trains it"
    assert not task.folder.exists()
    run(TINY + "keep: none\n")
    assert evaluate_case(task, Options(device="cpu")).status == "ok"  # nothing is missing
    more = replace(task, evaluations={"new": Evaluation(split="test")})
    assert "no weights were kept" in str(evaluate_case(more, Options(device="cpu")).reason)


def test_a_case_that_another_process_holds(run: Run, tmp_path: Path) -> None:
    run(should_stop=Stops(1))
    folder = only_folder(tmp_path)
    with folder.hold():
        folder.beat(epoch=1)
        [outcome] = run()
    assert outcome.status == "held"
    assert re.fullmatch(r"running on .+ \(process \d+\)", str(outcome.reason))


def test_the_pictures_show_errors(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    from bench.datasets.registry import open_dataset
    from bench.evaluation.drawing import RIGHT, VOID_COLOUR, WRONG

    run()
    folder = only_folder(tmp_path)
    picture = np.asarray(Image.open(sorted(folder.pictures.iterdir())[0]))
    assert picture.shape == (32, 4 * 32 + 3 * 4, 3)
    options = json.loads(folder.case.read_text())["dataset"]
    shapes = open_dataset(
        "shapes",
        "shapes",
        None,
        {k: v for k, v in options.items() if k not in ("name", "root", "suite_folder")},
        {},
    )
    image, target = shapes.read(shapes.samples("val")[0])
    assert np.array_equal(picture[:, :32], image)
    errors = picture[:, -32:]
    assert (errors[target == IGNORE_INDEX] == VOID_COLOUR).all()
    assert {tuple(c) for c in errors[target != IGNORE_INDEX].reshape(-1, 3)} <= {RIGHT, WRONG}


def test_run_case_reports_an_unwritable_folder(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    file = load(write_suite())
    [case] = expand(file.suite)
    (tmp_path / "blocked").write_text("")
    task = Task(case, tmp_path / "blocked" / "x", file.suite.scored, "val", "weights")
    outcome = run_case(task, Options(device="cpu"))
    assert outcome.status == "failed"
    assert "Cannot write to" in str(outcome.reason)
