"""Scoring a trained case: the files of an evaluation, and pictures of predictions."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bench.errors import UserError
from bench.evaluation import scores
from bench.evaluation.conventions import by_conventions
from bench.evaluation.drawing import save, strip
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.inference import Counts, predict
from bench.loading.images import eval_size, limited
from bench.machine.files import write_atomically, write_text
from bench.models.segmenter import Segmenter
from bench.records.case_folder import CaseFolder
from bench.records.record import EvaluationRecord
from bench.suite.case import Case
from bench.suite.columns import COLUMNS
from bench.suite.evaluation import Evaluation
from bench.suite.schema import size_text

NUM_PICTURES = 4


def score(
    model: Segmenter,
    case: Case,
    name: str,
    evaluation: Evaluation,
    evaluator: Evaluator,
    folder: CaseFolder,
) -> None:
    """Count an evaluation of a case, write its counts and then its scores.

    Of several processes, each counts its share and the first writes.
    """
    evaluator.compile(model, evaluation, case.model.arch)
    counts = evaluator.count(model, evaluation)
    if not evaluator.setup.world.writes:
        return
    names = evaluator.dataset.labels(evaluator.dataset.options).names
    most_frequent, constant = scores.constant_prediction(counts.per_image)
    iou = dict(zip(names, scores.class_iou(counts.per_image), strict=True))
    conventions = by_conventions(counts.per_image, names, case.recipe.batch_size)
    record = EvaluationRecord(
        name=name,
        asked=evaluation,
        protocol=_protocol(case, evaluation, evaluator),
        numerics=evaluator.numerics(evaluation).as_dict(),
        num_images=len(counts.ids),
        batch_size=counts.batch_size,
        num_averaged=scores.num_averaged(counts.per_image),
        scores=scores.finite(scores.scores(counts.per_image) | {"loss": counts.loss}),
        conventions=scores.finite(conventions),
        class_iou=scores.finite(iou),
        most_frequent=names[most_frequent],
        floor=scores.finite(scores.scores(constant)),
        seconds=counts.seconds,
    )
    file = folder.evaluation(name)
    folder.require()
    write_atomically(file.with_suffix(".npz"), lambda beside: _write_counts(beside, counts))
    write_text(file, record.model_dump_json(indent=1) + "\n")


def _write_counts(file: Path, counts: Counts) -> None:
    with file.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(counts.ids),
            per_image=counts.per_image,
            confusion=counts.confusion,
        )


def _protocol(case: Case, evaluation: Evaluation, evaluator: Evaluator) -> dict[str, Any]:
    """Return all that makes two scores comparable."""
    dataset = evaluator.dataset
    return {
        "dataset": dataset.title,
        "classes": dataset.labels(dataset.options).num_classes,
        "void": dataset.void,
        "split": dataset.describe_split(evaluation.split),
        "fingerprint": dataset.fingerprint(evaluation.split),
        "limit": case.limit,
        "size": size_text(eval_size(evaluation, case.recipe)),
        "method": evaluation.description,
        "score_at": evaluation.score_at,
        "checkpoint": _checkpoint_rule(case, evaluation),
        "miou": scores.MIOU_CONVENTION,
    }


def _checkpoint_rule(case: Case, evaluation: Evaluation) -> str:
    """Name the model that is scored, and whether it was chosen on the split that is scored."""
    recipe, select = case.recipe, case.select_split
    if not recipe.selects or recipe.epochs == 0:
        return "last"
    by = f"{COLUMNS[recipe.select_by].header} on {select}"
    rule = f"best {by}" if recipe.checkpoint == "best" else "last"
    if recipe.patience is not None:
        rule += f", stopped after {recipe.patience} epochs without a better {by}"
    return f"{rule} (chosen on the split scored)" if select == evaluation.split else rule


def draw(
    model: nn.Module, evaluation: Evaluation, evaluator: Evaluator, folder: CaseFolder
) -> None:
    """Save a few images of a split, always the same, with truth and prediction."""
    model.eval()
    images, setup = evaluator.images(evaluation), evaluator.setup
    labels = evaluator.dataset.labels(evaluator.dataset.options)
    chosen = {sample.id for sample in limited(images.samples, NUM_PICTURES)}
    for index, sample in enumerate(images.samples):
        if sample.id not in chosen:
            continue
        item = images[0, index]
        if isinstance(item, UserError):
            raise item
        image, target, name = item
        size = target.shape[0], target.shape[1]
        logits = predict(model, image[None].to(setup.device), size, evaluation, setup)
        pred = logits.max(1).indices[0].cpu().numpy()
        picture = strip(image.permute(1, 2, 0).numpy(), target.numpy(), pred, labels)
        save(picture, folder.pictures / f"{name.replace('/', '_')}.png")
