"""Choice of the checkpoint, early stopping, clocks, NaN losses, running out of memory."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY

from bench.datasets.registry import open_dataset
from bench.errors import UserError
from bench.evaluation import scores
from bench.evaluation.evaluator import Evaluator
from bench.loading.images import TrainImages
from bench.loading.loader import EpochSampler
from bench.machine.clock import NAMES, Clock
from bench.models.segmenter import Segmenter
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.record import Record, read_evaluations, read_record
from bench.runner.plan import plan
from bench.runner.run_suite import run_planned
from bench.runner.task import Options, Outcome
from bench.runner.validate import check
from bench.suite.expand import expand
from bench.suite.load import load

Run = Callable[..., Outcome]
NUM_STEPS = 4  # per epoch


@pytest.fixture
def run(write_suite: Callable[..., Path], tmp_path: Path) -> Run:
    """Run the only case of the tiny suite with settings; return its outcome."""

    def run_case(*settings: str, out: str = "out", **options: object) -> Outcome:
        file = load(write_suite(TINY), settings)
        [case] = expand(file.suite)
        checked = check(file, [case], {}, need_data=True)
        planned = plan(file.suite, [case], tmp_path / out, checked)
        [outcome] = run_planned(planned, Options(device="cpu", **options))
        return outcome

    return run_case


def folder_of(tmp_path: Path, out: str = "out") -> CaseFolder:
    [folder] = (tmp_path / out).iterdir()
    return CaseFolder(folder)


def record_of(tmp_path: Path, out: str = "out") -> Record:
    record = read_record(folder_of(tmp_path, out).path)
    assert record is not None
    return record


def assert_same_weights(tmp_path: Path, one: str, other: str) -> None:
    a, b = (read_weights(folder_of(tmp_path, out).weights) for out in (one, other))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the scores during training by scripted ones."""

    def script(*mious: float) -> None:
        coming = iter(mious)

        def scored(counts: np.ndarray) -> dict[str, float]:
            of_training = counts.ndim == 2
            return {"miou": 0.0 if of_training else next(coming)}

        monkeypatch.setattr(
            "bench.training.epoch_row.scores", SimpleNamespace(scores=scored, finite=scores.finite)
        )

    return script


def test_the_best_epoch_is_the_result(
    run: Run, tmp_path: Path, scripted: Callable[..., None]
) -> None:
    run("recipe.epochs=2", out="two")
    scripted(0.1, 0.5, 0.5, 0.3)
    assert run("recipe.epochs=4", "recipe.checkpoint=best", out="best").status == "ok"
    assert_same_weights(tmp_path, "two", "best")  # the schedule is constant
    training = record_of(tmp_path, "best").training
    assert training is not None
    assert (training.epochs, training.chosen_epoch, training.stopped_early) == (4, 2, False)
    two, best = (
        {e.name: e for e in read_evaluations(folder_of(tmp_path, out).path)}
        for out in ("two", "best")
    )
    assert two["val"].scores == best["val"].scores
    assert two["val"].protocol["checkpoint"] == "last"
    assert best["val"].protocol["checkpoint"] == "best mIoU on val (chosen on the split scored)"
    assert best["train"].protocol["checkpoint"] == "best mIoU on val"


def test_the_best_epoch_survives_a_stop(
    run: Run, tmp_path: Path, scripted: Callable[..., None]
) -> None:
    settings = ("recipe.epochs=3", "recipe.checkpoint=best")
    scripted(0.5, 0.1, 0.1)
    run(*settings, out="whole")
    scripted(0.5)
    beats = iter([False] * (NUM_STEPS + 5))
    assert run(*settings, out="cut", should_stop=lambda: next(beats, True)).status == "interrupted"
    scripted(0.1, 0.1)
    assert run(*settings, out="cut").status == "ok"
    assert_same_weights(tmp_path, "whole", "cut")


def test_a_loss_is_best_when_low(run: Run, tmp_path: Path, scripted: Callable[..., None]) -> None:
    scripted(0.9, 0.5, 0.1)
    run("recipe.epochs=3", "recipe.checkpoint=best", "recipe.select_by=loss")
    history = folder_of(tmp_path).history.read_text().splitlines()
    column = history[0].split(",").index("select_loss")
    losses = [float(line.split(",")[column]) for line in history[1:]]
    training = record_of(tmp_path).training
    assert training is not None
    assert training.chosen_epoch == 1 + losses.index(min(losses))


@pytest.mark.parametrize(
    ("every", "mious", "epochs"),
    [(1, (0.1, 0.5, 0.5, 0.4, 0.9), 4), (2, (0.5, 0.4, 0.3), 4), (1, (0.1, 0.2, 0.3, 0.4, 0.5), 5)],
)
def test_patience(
    run: Run,
    tmp_path: Path,
    scripted: Callable[..., None],
    every: int,
    mious: tuple[float, ...],
    epochs: int,
) -> None:
    settings = ("recipe.epochs=5", "recipe.patience=2", f"recipe.validate_every={every}")
    scripted(*mious)
    run(*settings)
    record = record_of(tmp_path)
    assert record.training is not None
    assert record.training.epochs == epochs
    assert record.training.stopped_early == (epochs < 5)
    assert record.training.chosen_epoch == epochs
    rule = read_evaluations(folder_of(tmp_path).path)[0].protocol["checkpoint"]
    assert rule == "last, stopped after 2 epochs without a better mIoU on val"


def test_what_selects_is_part_of_the_case(write_suite: Callable[..., Path]) -> None:
    def case_id(*settings: str) -> str:
        [case] = expand(load(write_suite(TINY), settings).suite)
        return case.id

    other = "splits={select: test}"
    assert case_id() == case_id(other)
    assert case_id("recipe.checkpoint=best") != case_id("recipe.checkpoint=best", other)
    assert case_id("recipe.patience=3") != case_id("recipe.patience=3", other)


def test_each_delay_lands_in_its_own_clock(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]

    def delayed(
        owner: object, name: str, seconds: float, when: Callable[..., bool] = lambda *_: True
    ) -> None:
        """Make a function take time."""
        function = getattr(owner, name)

        def later(*args: object, **kwargs: object) -> object:
            time[0] += seconds if when(*args) else 0
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, later)

    from bench.runner import attempt

    monkeypatch.setattr(attempt, "Clock", lambda: Clock(lambda: time[0]))
    delayed(attempt, "build_model", 1000)
    delayed(Evaluator, "count", 100)
    delayed(Segmenter, "forward", 10, lambda model, *_: model.training)
    delayed(TrainImages, "finish", 1)
    run("recipe.epochs=3", loader_workers=0)
    training = record_of(tmp_path).training
    assert training is not None
    assert training.start_s == 1000
    assert training.validation_s == 100
    assert training.epoch_s == NUM_STEPS * (10 + 4 * 1)
    assert training.first_epoch_s == training.epoch_s
    assert training.data_wait_share == pytest.approx(4 / 14)
    assert training.total_s == 3 * training.epoch_s


def test_the_clock_keeps_what_was_timed_when_the_body_raises() -> None:
    times = iter([1.0, 4.0])
    clock = Clock(lambda: next(times))
    with pytest.raises(KeyError), clock.timing("training"):
        raise KeyError
    assert clock.seconds == dict.fromkeys(NAMES, 0) | {"training": 3}


def test_a_loss_that_is_none_names_its_batch(run: Run, tmp_path: Path) -> None:
    outcome = run("models.enet.arch=planted:nan", "recipe.schedule=poly")
    assert outcome.status == "failed"
    second = EpochSampler(16, 4, seed=0).batches(1)[1]
    shapes = open_dataset("shapes", "shapes", None, {"num_train": 16, "num_val": 6}, {})
    files = ", ".join(shapes.samples("train")[index].id for _, index in second)
    lr = f"{1e-3 * (1 - 5 / 8) ** 0.9:g}"
    expected = f"loss is nan in epoch 2, step 6 of 8, at learning rate {lr}, on {files}."
    assert expected in str(outcome.reason)
    assert record_of(tmp_path).status == "failed"
    assert record_of(tmp_path).failure is not None
    assert folder_of(tmp_path).history.read_text().count("\n") == 2  # the first epoch is kept


GREEDY = ("models.enet.arch=planted:greedy", "recipe.epochs=3")


def test_too_little_memory_fails_and_says_what_to_do(run: Run, tmp_path: Path) -> None:
    outcome = run(*GREEDY)
    assert outcome.status == "failed"
    assert "on_oom: accumulate" in str(outcome.reason)


def test_one_image_too_many(run: Run, tmp_path: Path) -> None:
    settings = ("models.enet.arch=planted:insatiable", "recipe.on_oom=accumulate")
    outcome = run(*settings, "recipe.epochs=3")
    assert outcome.status == "failed"
    assert "on_oom" not in str(outcome.reason)
    assert [note.split(";")[0] for note in record_of(tmp_path).notes] == [
        "out of memory with micro-batches of 4 images",
        "out of memory with micro-batches of 2 images",
    ]


def test_too_little_memory_halves_what_is_computed_at_once(run: Run, tmp_path: Path) -> None:
    outcome = run(*GREEDY, "recipe.on_oom=accumulate", out="halved")
    [note] = outcome.notes
    assert note == "out of memory with micro-batches of 4 images; restarted with 2 (batch size 4)"
    record = record_of(tmp_path, "halved")
    assert record.notes == (note,)
    assert record.numerics["micro_batch"] == 2
    assert record.training is not None
    assert (record.training.steps, record.training.resumed) == (12, 0)
    run(*GREEDY, "recipe.accumulate=2", out="asked")
    assert_same_weights(tmp_path, "halved", "asked")


def test_a_halved_case_stays_halved_when_it_goes_on(run: Run, tmp_path: Path) -> None:
    settings = (*GREEDY, "recipe.on_oom=accumulate")
    run(*settings, out="whole")
    beats = iter([False] * 21)  # 5 steps, a validation of 2 batches, and after the restart
    assert run(*settings, out="cut", should_stop=lambda: next(beats, True)).status == "interrupted"
    assert run(*settings, out="cut").status == "ok"
    assert record_of(tmp_path, "cut").numerics["micro_batch"] == 2
    assert_same_weights(tmp_path, "whole", "cut")


def test_scoring_with_too_little_memory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.evaluation import evaluator

    evaluate = evaluator.evaluate
    sizes = []

    def greedy(model: object, batches: object, *args: object) -> object:
        sizes.append(max(len(ids) for _, _, ids in batches))  # type: ignore[attr-defined]
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("planted")
        return evaluate(model, batches, *args)  # type: ignore[arg-type]

    run(out="plenty")
    monkeypatch.setattr(evaluator, "evaluate", greedy)
    assert run("recipe.on_oom=accumulate", out="little").status == "ok"
    assert sizes[:3] == [4, 2, 1]
    one, other = (read_evaluations(folder_of(tmp_path, o).path)[0] for o in ("plenty", "little"))
    assert one.scores["miou"] == other.scores["miou"]
    assert "planted" in str(run(out="refused").reason)


def test_deterministic_training(run: Run, tmp_path: Path) -> None:
    run("recipe.deterministic=true", out="one")
    run("recipe.deterministic=true", out="two")
    assert_same_weights(tmp_path, "one", "two")
    assert record_of(tmp_path, "one").numerics["deterministic"] is True
    assert not torch.are_deterministic_algorithms_enabled()
    unpool = "models.enet.arch=planted:unpool"
    with pytest.raises(
        UserError, match="deterministic: max_unpool.* has no deterministic implementation"
    ):
        run(unpool, "recipe.deterministic=true", out="refused")
    assert not torch.are_deterministic_algorithms_enabled()
    assert run(unpool, out="otherwise").status == "ok"
