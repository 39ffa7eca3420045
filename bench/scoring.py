"""A model scored: the files of an evaluation, and pictures of what it predicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import scores
from bench.atomic import write_atomically, write_text
from bench.case import Case
from bench.case_folder import CaseFolder
from bench.columns import COLUMNS
from bench.conventions import by_conventions
from bench.data import Dataset, Labels, Sample, open_dataset
from bench.data.decoding import keep_decoded
from bench.data.images import EvalImages, eval_size, limited
from bench.data.loader import eval_loader
from bench.data.loading import Loading
from bench.device import Numerics, is_out_of_memory, release_memory
from bench.errors import UserError
from bench.evaluate import Counts, evaluate, predict
from bench.evaluation import Evaluation
from bench.losses import Loss
from bench.networks import first_line
from bench.pictures import save, strip
from bench.record import EvaluationRecord, read_evaluations
from bench.schema import Cache, size_text

NUM_PICTURES = 4


def open_case_dataset(case: Case, roots: Mapping[str, Path]) -> Dataset:
    """Open the dataset of a case where it lies."""
    spec = case.dataset
    return open_dataset(case.dataset_name, spec.name, spec.root, spec.options, roots)


@dataclass(frozen=True)
class Scorer:
    """What the evaluations of one case have in common."""

    case: Case
    dataset: Dataset
    labels: Labels
    train_samples: Sequence[Sample]
    loss_fn: Loss
    device: torch.device
    numerics: Numerics
    cache: Cache
    loading: Loading
    prepared: dict[Evaluation, EvalImages] = field(default_factory=dict)

    def count(
        self,
        model: torch.nn.Module,
        evaluation: Evaluation,
        beat: Callable[[], None],
        times_read: int = 1,
    ) -> Counts:
        """Predict and count a split.

        Args:
            times_read: how often this evaluation is counted in all.
        """
        images = self.images(evaluation, times_read, beat)
        batch_size = self.numerics.micro_batch
        while True:
            try:
                return self._count(model, images, evaluation, batch_size, beat)
            except (RuntimeError, MemoryError) as error:
                if self.case.recipe.on_oom == "fail" or not is_out_of_memory(error):
                    raise
                if batch_size == 1:
                    raise UserError(
                        f"One image of {evaluation.split} does not fit into memory: "
                        f"{first_line(error)}"
                    ) from error
            batch_size //= 2  # each image is scored by itself, so that this changes no score
            release_memory(self.device)

    def _count(
        self,
        model: torch.nn.Module,
        images: EvalImages,
        evaluation: Evaluation,
        batch_size: int,
        beat: Callable[[], None],
    ) -> Counts:
        loader = eval_loader(images, batch_size, self.loading)
        with loader.guarded():
            return evaluate(
                model,
                loader,
                evaluation,
                self.loss_fn,
                self.labels.num_classes,
                self.device,
                self.numerics.precision,
                beat,
            )

    def score(
        self,
        model: torch.nn.Module,
        name: str,
        evaluation: Evaluation,
        folder: CaseFolder,
        beat: Callable[[], None],
    ) -> None:
        """Write the counts of an evaluation and, then, its scores."""
        counts = self.count(model, evaluation, beat)
        most, floor = scores.constant_prediction(counts.per_image)
        iou = dict(zip(self.labels.names, scores.class_iou(counts.per_image), strict=True))
        conventions = by_conventions(
            counts.per_image, self.labels.names, self.case.recipe.batch_size
        )
        record = EvaluationRecord(
            name=name,
            asked=evaluation,
            protocol=self._protocol(evaluation),
            numerics=self.numerics.as_dict(),
            num_images=len(counts.ids),
            num_averaged=scores.num_averaged(counts.per_image),
            scores=scores.finite(scores.scores(counts.per_image) | {"loss": counts.loss}),
            conventions=scores.finite(conventions),
            class_iou=scores.finite(iou),
            most_frequent=self.labels.names[most],
            floor=scores.finite(scores.scores(floor)),
            seconds=counts.seconds,
        )
        file = folder.evaluation(name)
        write_atomically(file.with_suffix(".npz"), lambda beside: _write_counts(beside, counts))
        write_text(file, record.model_dump_json(indent=1) + "\n")

    def draw(self, model: torch.nn.Module, evaluation: Evaluation, folder: CaseFolder) -> None:
        """Save a few images of a split, always the same, with truth and prediction."""
        model.eval()
        images = self.images(evaluation)
        chosen = {sample.id for sample in limited(images.samples, NUM_PICTURES)}
        for index, sample in enumerate(images.samples):
            if sample.id not in chosen:
                continue
            item = images[0, index]
            if isinstance(item, UserError):
                raise item
            image, target, name = item
            logits = predict(
                model,
                image[None].to(self.device),
                (target.shape[0], target.shape[1]),
                evaluation,
                self.device,
                self.numerics.precision,
            )
            pred = logits.max(1).indices[0].cpu().numpy()
            picture = strip(image.permute(1, 2, 0).numpy(), target.numpy(), pred, self.labels)
            save(picture, folder.pictures / f"{name.replace('/', '_')}.png")

    def images(
        self,
        evaluation: Evaluation,
        times_read: int = 1,
        beat: Callable[[], None] = lambda: None,
    ) -> EvalImages:
        """Return the images of an evaluation, decoded once where they are read more than once."""
        if evaluation not in self.prepared:
            samples = limited(self.dataset.samples(evaluation.split), self.case.limit)
            images = EvalImages(self.dataset, samples, evaluation, self.case.recipe)
            keep_decoded(images, self.cache, evaluation.split, times_read, beat)
            self.prepared[evaluation] = images
        return self.prepared[evaluation]

    def _protocol(self, evaluation: Evaluation) -> dict[str, Any]:
        size = eval_size(evaluation, self.case.recipe)
        return {
            "dataset": self.dataset.title,
            "classes": self.labels.num_classes,
            "void": self.dataset.void,
            "split": self.dataset.describe_split(evaluation.split),
            "fingerprint": self.dataset.fingerprint(evaluation.split),
            "limit": self.case.limit,
            "size": size_text(size),
            "method": evaluation.description,
            "score_at": evaluation.score_at,
            "checkpoint": self._checkpoint_rule(evaluation),
            "miou": scores.MIOU_CONVENTION,
        }

    def _checkpoint_rule(self, evaluation: Evaluation) -> str:
        """Say which model is scored, and where that was chosen on the very split that is scored."""
        recipe, select = self.case.recipe, self.case.select_split
        if not recipe.selects or recipe.epochs == 0:
            return "last"
        by = f"{COLUMNS[recipe.select_by].header} on {select}"
        rule = f"best {by}" if recipe.checkpoint == "best" else "last"
        if recipe.patience is not None:
            rule += f", stopped after {recipe.patience} epochs without a better {by}"
        return f"{rule} (chosen on the split scored)" if select == evaluation.split else rule


def unscored(folder: Path, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """List the evaluations that a case has no scores of, or scores of another definition."""
    found = {record.name: record.asked for record in read_evaluations(folder)}
    return [name for name, evaluation in evaluations.items() if found.get(name) != evaluation]


def _write_counts(file: Path, counts: Counts) -> None:
    with file.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(counts.ids),
            per_image=counts.per_image,
            confusion=counts.confusion,
        )
