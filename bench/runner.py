"""Running one case: seed, build, train, evaluate, profile; the place that records a failure."""

import csv
import io
import logging
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bench import scores
from bench.case import Case
from bench.checkpoint import History, load_checkpoint, recorded_numerics, save_checkpoint
from bench.data.loader import TrainImages, limited, train_loader
from bench.data.transforms import BACKEND
from bench.device import (
    Numerics,
    describe_device,
    pick_device,
    pick_precision,
    seed_everything,
    set_precision,
)
from bench.errors import UserError
from bench.losses import build_loss
from bench.models import Segmenter, build_model
from bench.optim import build_optimizer, learning_rate
from bench.profiling import complexity, peak_memory_mib, reset_peak_memory, state_bytes
from bench.record import (
    CaseFolder,
    Held,
    Record,
    Training,
    environment,
    now,
    read_record,
    write_atomically,
    write_json,
    write_text,
)
from bench.scoring import Scorer, open_case_dataset
from bench.suite import Evaluation
from bench.train import TrainState, train_epoch
from bench.weights import load_model, load_part, read_weights, write_weights

BEAT_S = 1.0
CHECKPOINT_EVERY_S = 60.0
log = logging.getLogger("bench.case")


class Interrupted(Exception):
    """The case stopped, with its state saved, because it was asked to."""


@dataclass(frozen=True)
class Options:
    """Where and how to run; nothing here changes what a case is."""

    device: str = "auto"
    roots: Mapping[str, Path] = field(default_factory=dict)
    loader_workers: int | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Task:
    """A case, how to score it and where it goes."""

    case: Case
    folder: Path
    evaluations: Mapping[str, Evaluation]
    select: str
    keep: Literal["weights", "all", "none"]


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    case: Case
    status: Literal["ok", "failed", "blocked", "held", "interrupted"]
    reason: str | None = None
    seconds: float = 0.0


def run_case(task: Task, options: Options) -> Outcome:
    """Train and score a case and leave its record; a failure is recorded too."""
    start = time.perf_counter()
    folder = CaseFolder(task.folder)
    try:
        with folder.hold(), _logging_to(folder.log):
            status, reason = _recorded(task, options, folder)
    except Held as holder:
        return Outcome(task.case, "held", f"held by {holder}")
    except UserError as error:
        return Outcome(task.case, "failed", str(error))
    return Outcome(task.case, status, reason, time.perf_counter() - start)


def _recorded(
    task: Task, options: Options, folder: CaseFolder
) -> tuple[Literal["ok", "failed", "interrupted"], str | None]:
    started = now()
    write_json(folder.case, task.case.model_dump(mode="json"))
    folder.record.unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            record = _Run(task, options, folder).run(started)
    except Interrupted as stop:
        return "interrupted", str(stop)
    except Exception as error:  # the one place: whatever a case does, its failure is a record
        log.error("failed\n%s", traceback.format_exc())
        record = Record(
            id=task.case.id,
            case=task.case,
            status="failed",
            reason=_reason(error, folder),
            started=started,
            finished=now(),
            environment=dict(environment()),
        )
    finally:
        logging.captureWarnings(False)
    write_text(folder.record, record.model_dump_json(indent=1) + "\n")
    if record.status == "ok" and task.keep != "all":
        folder.checkpoint.unlink(missing_ok=True)
    return ("ok" if record.status == "ok" else "failed"), record.reason


def _reason(error: Exception, folder: CaseFolder) -> str:
    if isinstance(error, UserError):
        return str(error)
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (traceback in {folder.log})"


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = log, logging.getLogger("py.warnings")
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _Run:
    """One case from seed to record; the steps share what is built in `__init__`."""

    def __init__(self, task: Task, options: Options, folder: CaseFolder) -> None:
        self.task, self.case, self.folder, self.options = task, task.case, folder, options
        self.numerics = self._pick_numerics()
        self.device = pick_device(options.device)
        self.scorer = open_scorer(self.case, options, self.device, self.numerics)
        self.dataset, self.loss_fn = self.scorer.dataset, self.scorer.loss_fn
        self.last_beat = 0.0

    def _pick_numerics(self) -> Numerics:
        """Choose what runs; a resumed case keeps what it began with."""
        recipe = self.case.recipe
        device = pick_device(self.options.device)
        begun = recorded_numerics(self.folder.checkpoint, self.case.id)
        if begun is not None:
            if begun.device != device.type:
                raise UserError(
                    f"{self.case.name} was begun on {begun.device}, not {device.type}; go on with "
                    f"--device {begun.device}, or delete {self.folder.checkpoint}."
                )
            torch.set_num_threads(begun.threads)
        chosen = Numerics(
            device=device.type,
            precision=pick_precision(recipe.precision, device),
            augmentation=BACKEND if recipe.augment else "none",
            micro_batch=recipe.micro_batch,
            threads=torch.get_num_threads(),
        )
        if begun not in (None, chosen):
            raise UserError(
                f"{self.case.name} was begun with {begun}, and this machine would go on with "
                f"{chosen}; delete {self.folder.checkpoint} to begin again."
            )
        return chosen

    def run(self, started: str) -> Record:
        """Return the record of a case that went well."""
        set_precision(self.numerics.precision)
        seed_everything(self.case.seed)
        model, model_facts = self._build()
        training, checkpoint_bytes = self._train(model)
        for name, evaluation in self.task.evaluations.items():
            self.scorer.score(model, name, evaluation, self.folder, self._beat_scoring)
        self.scorer.draw(model, next(iter(self.task.evaluations.values())), self.folder)
        if self.task.keep != "none":
            write_atomically(
                self.folder.weights, lambda beside: write_weights(model.net.state_dict(), beside)
            )
        facts = complexity(
            self.case.model,
            self.scorer.labels.num_classes,
            self._input_size(),
            model.input_multiple,
            self.case.recipe.micro_batch,
        )
        splits = {self.case.train_split, *(e.split for e in self.task.evaluations.values())}
        return Record(
            id=self.case.id,
            case=self.case,
            status="ok",
            started=started,
            finished=now(),
            environment={**environment(), **describe_device(self.device)},
            numerics=self.numerics.as_dict(),
            model=model_facts,
            complexity=asdict(facts) | {"checkpoint_bytes": checkpoint_bytes},
            fingerprints={split: self.dataset.fingerprint(split) for split in sorted(splits)},
            training=training,
        )

    def _build(self) -> tuple[Segmenter, dict[str, Any]]:
        model, facts = build_model(self.case.model, self.scorer.labels.num_classes)
        if self.case.parent is not None:
            file = CaseFolder(self.folder.path.parent / self.case.parent.folder).weights
            unused = load_part(
                model.net, read_weights(file), self.case.parent.part, self.case.parent.name
            )
            facts |= {"init_from": self.case.parent.name, "init_from_unused": unused}
        log.info("model %s", facts)
        return model.to(self.device), facts

    def _train(self, model: Segmenter) -> tuple[Training, int]:
        case, recipe = self.case, self.case.recipe
        samples = limited(self.dataset.samples(case.train_split), case.limit)
        if recipe.epochs == 0:
            training = Training(epochs=0, steps=0, num_train=len(samples), total_s=0)
            return training, state_bytes(model.net.state_dict())
        images = TrainImages(self.dataset, samples, recipe, case.seed)
        loader, sampler = train_loader(
            images,
            recipe.batch_size,
            case.seed,
            self.scorer.loader_workers,
            pin_memory=self.device.type == "cuda",
        )
        per_epoch = len(samples) // recipe.batch_size
        num_steps = recipe.steps or (recipe.epochs or 0) * per_epoch
        state = TrainState(
            model=model,
            optimizer=build_optimizer(recipe, model),
            scaler=torch.amp.GradScaler(
                self.device.type, enabled=self.numerics.precision == "fp16"
            ),
            num_steps=num_steps,
            steps_per_epoch=per_epoch,
            total_loss=torch.zeros((), device=self.device),
        )
        history, resumed = load_checkpoint(self.folder.checkpoint, case.id, state)
        if resumed:
            log.info("resumed at step %d of %d", state.step, num_steps)
        reset_peak_memory(self.device)
        num_epochs = -(-num_steps // per_epoch)
        saved = time.monotonic()
        start = time.perf_counter()
        try:
            while len(history) < num_epochs:
                epoch = len(history)
                sampler.epoch, sampler.start = epoch, state.step - epoch * per_epoch
                if state.step < min((epoch + 1) * per_epoch, num_steps):
                    train_epoch(
                        state,
                        loader,
                        recipe,
                        self.loss_fn,
                        self.device,
                        self.numerics.precision,
                        lambda: self._beat(history, num_epochs, state.step, num_steps),
                    )
                history.append(self._end_epoch(state, epoch, num_epochs, history))
                state.total_loss.zero_()
                state.seconds = state.data_wait_s = 0.0
                _write_history(self.folder.history, history)
                late = time.monotonic() - saved > CHECKPOINT_EVERY_S
                if late or len(history) == num_epochs:
                    self._save(state, history, resumed)
                    saved = time.monotonic()
        except Interrupted:
            self._save(state, history, resumed)
            raise
        later = [row["seconds"] for row in history[1:]]
        epoch_s = statistics.median(later) if later else None
        waits = [row["data_wait_s"] / row["seconds"] for row in history[1:]]
        training = Training(
            epochs=num_epochs,
            steps=num_steps,
            num_train=len(samples),
            first_epoch_s=history[0]["seconds"],
            epoch_s=epoch_s,
            images_per_s=per_epoch * recipe.batch_size / epoch_s if epoch_s else None,
            data_wait_share=statistics.median(waits) if waits else None,
            total_s=time.perf_counter() - start,
            resumed=resumed,
            peak_memory_mib=peak_memory_mib(self.device),
            loss=history[-1]["loss"],
        )
        optimizer_bytes = sum(
            state_bytes(entry) for entry in state.optimizer.state_dict()["state"].values()
        )
        return training, state_bytes(model.net.state_dict()) + optimizer_bytes

    def _end_epoch(
        self, state: TrainState, epoch: int, num_epochs: int, history: History
    ) -> dict[str, Any]:
        """Return the history's row of an epoch, scored on the selection split where it is due."""
        recipe = self.case.recipe
        steps = state.step - epoch * state.steps_per_epoch
        loss = float(state.total_loss) / steps
        if not np.isfinite(loss):
            raise UserError(
                f"The training loss is {loss} in epoch {epoch + 1}; lower the learning rate "
                f"({recipe.optimizer.lr}), clip gradients (clip_grad) or train in fp32."
            )
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": state.step,
            "lr": learning_rate(recipe, state.step - 1, state.num_steps, state.steps_per_epoch),
            "loss": loss,
            "seconds": state.seconds,
            "data_wait_s": state.data_wait_s,
            "images_per_s": steps * recipe.batch_size / state.seconds,
        }
        due = (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == num_epochs
        if due:
            counts = self.scorer.count(
                state.model,
                Evaluation(split=self.task.select),
                lambda: self._beat(history, num_epochs, state.step, state.num_steps),
            )
            scored = scores.finite(scores.scores(counts.per_image) | {"loss": counts.loss})
            row |= {f"select_{name}": value for name, value in scored.items()}
        log.info("epoch %s", row)
        return row

    def _input_size(self) -> tuple[int, int]:
        """Return the (H, W) that training feeds the network."""
        samples = limited(self.dataset.samples(self.case.train_split), self.case.limit)
        images = TrainImages(self.dataset, samples, self.case.recipe, self.case.seed)
        item = images[0, 0]
        if isinstance(item, UserError):
            raise item
        return item[0].shape[1], item[0].shape[2]

    def _save(self, state: TrainState, history: History, resumed: int) -> None:
        save_checkpoint(
            self.folder.checkpoint, self.case.id, state, history, self.numerics, resumed
        )

    def _beat(self, history: History, num_epochs: int, step: int, num_steps: int) -> None:
        """Give a sign of life now and then; stop where it was asked for."""
        if time.monotonic() - self.last_beat > BEAT_S:
            self.last_beat = time.monotonic()
            last = history[-1] if history else {}
            self.folder.beat(
                case=self.case.name,
                epoch=len(history) + 1,
                num_epochs=num_epochs,
                step=step,
                num_steps=num_steps,
                loss=last.get("loss"),
                miou=last.get("select_miou"),
                images_per_s=last.get("images_per_s"),
            )
        if self.options.should_stop():
            raise Interrupted(f"stopped at step {step} of {num_steps}")

    def _beat_scoring(self) -> None:
        self._beat([], 0, 0, 0)


def open_scorer(case: Case, options: Options, device: torch.device, numerics: Numerics) -> Scorer:
    """Open a case's dataset and what scores it."""
    dataset = open_case_dataset(case, options.roots)
    labels = dataset.labels(dataset.options)
    automatic = 0 if device.type == "cpu" else min(8, torch.get_num_threads())
    return Scorer(
        case=case,
        dataset=dataset,
        labels=labels,
        loss_fn=build_loss(case.recipe.loss, labels.num_classes, device),
        device=device,
        numerics=numerics,
        loader_workers=automatic if options.loader_workers is None else options.loader_workers,
    )


def evaluate_case(task: Task, options: Options) -> Outcome:
    """Score the kept weights of a finished case by the evaluations it lacks."""
    start = time.perf_counter()
    folder = CaseFolder(task.folder)
    try:
        with folder.hold(), _logging_to(folder.log):
            record = read_record(task.folder)
            if record is None or record.status != "ok":
                raise UserError("not trained; bench run trains it")
            if not folder.weights.exists():
                raise UserError(f"no weights were kept ({folder.weights})")
            device = pick_device(options.device)
            precision = pick_precision(task.case.recipe.precision, device)
            numerics = replace(
                Numerics(**record.numerics),
                device=device.type,
                precision=precision,
                threads=torch.get_num_threads(),
            )
            set_precision(precision)
            scorer = open_scorer(task.case, options, device, numerics)
            network = task.case.model.model_copy(update={"weights": None})
            model, _ = build_model(network, scorer.labels.num_classes)
            load_model(model.net, read_weights(folder.weights), str(folder.weights))
            model.to(device)
            for name, evaluation in task.evaluations.items():
                if not folder.evaluation(name).exists():
                    scorer.score(model, name, evaluation, folder, lambda: None)
    except Held as holder:
        return Outcome(task.case, "held", f"held by {holder}")
    except UserError as error:
        return Outcome(task.case, "failed", str(error))
    return Outcome(task.case, "ok", None, time.perf_counter() - start)


def record_blocked(task: Task, reason: str) -> Outcome:
    """Record that a case could not start because the one it starts from did not finish."""
    record = Record(
        id=task.case.id,
        case=task.case,
        status="blocked",
        reason=reason,
        started=now(),
        finished=now(),
        environment=dict(environment()),
    )
    write_text(CaseFolder(task.folder).record, record.model_dump_json(indent=1) + "\n")
    return Outcome(task.case, "blocked", reason)


def _write_history(file: Path, history: History) -> None:
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(file, text.getvalue(), sync=False)
