"""Count a model's predictions on the splits of a dataset."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from bench.datasets.base import Dataset
from bench.errors import UserError
from bench.evaluation.inference import Counts, evaluate, forward
from bench.evaluation.setup import Setup
from bench.loading.images import EvalImages, limited, network_size
from bench.loading.loader import Loader, eval_loader
from bench.loading.loading import Loading
from bench.loading.predecode import keep_decoded
from bench.machine.device import as_it_runs, searching
from bench.machine.memory import is_out_of_memory, release_memory
from bench.machine.numerics import Numerics
from bench.models.segmenter import Segmenter
from bench.suite.evaluation import Evaluation
from bench.suite.recipe import Recipe
from bench.suite.schema import Cache
from bench.text import first_line

EvalLoader = tuple[int, Loader]  # with its batch size


@dataclass(frozen=True)
class Evaluator:
    """What all evaluations of a case share.

    limit: how many images of each split are used: a number or a fraction; None for all.
    cache: where decoded images are kept.
    prepared: the images of the evaluations that were used before.
    loaders: of evaluations that run several times, with their workers.
    batch_size: images per forward pass; None: as many as in a pass of training.
    """

    dataset: Dataset
    recipe: Recipe
    limit: int | float | None
    setup: Setup
    cache: Cache
    loading: Loading
    prepared: dict[Evaluation, EvalImages] = field(default_factory=dict)
    loaders: dict[Evaluation, EvalLoader] = field(default_factory=dict)
    batch_size: int | None = None

    def count(self, model: nn.Module, evaluation: Evaluation, times_read: int = 1) -> Counts:
        """Predict and count a split.

        If memory runs out and the recipe allows it, batches are halved, also in later calls. Each
        image is scored by itself, so this changes no score.

        Args:
            times_read: how often this evaluation runs in total.

        Raises:
            UserError: if one image alone does not fit into memory.
        """
        images = self.images(evaluation, times_read)
        while True:
            batch_size, loader = self._loader(evaluation, images)
            if times_read > 1:
                self.loaders[evaluation] = batch_size, loader
            has_one_size = network_size(evaluation, self.recipe) is not None
            try:
                with loader.guarded(), searching(has_one_size):
                    return evaluate(model, loader, evaluation, self.setup)
            except (RuntimeError, MemoryError) as error:
                if self.recipe.on_oom == "fail" or not is_out_of_memory(error):
                    raise
                if batch_size == 1:
                    raise UserError(
                        f"One image of {evaluation.split} does not fit into memory: "
                        f"{first_line(error)}"
                    ) from error
            smaller = batch_size // 2
            self.loaders[evaluation] = smaller, self._of_share(images, smaller)
            release_memory(self.setup.device)

    def _loader(self, evaluation: Evaluation, images: EvalImages) -> EvalLoader:
        """Return the loader of an evaluation, and the batch size that fits."""
        if evaluation in self.loaders:
            return self.loaders[evaluation]
        batch_size = min((size for size, _ in self.loaders.values()), default=self._asked_batch)
        return batch_size, self._of_share(images, batch_size)

    def _of_share(self, images: EvalImages, batch_size: int) -> Loader:
        """Return a loader of the images that this process scores."""
        share = self.setup.world.share(len(images))
        return eval_loader(images, batch_size, self.loading, share)

    @property
    def _asked_batch(self) -> int:
        of_one_pass = self.setup.numerics.micro_batch // self.setup.world.size
        return self.batch_size or max(1, of_one_pass)

    def numerics(self, evaluation: Evaluation) -> Numerics:
        """Return what an evaluation runs with; images of different sizes change it."""
        ran = as_it_runs(self.setup.numerics)
        if network_size(evaluation, self.recipe) is None:
            return replace(ran, compile=None, cudnn_benchmark=False)
        return ran

    def compile(self, model: Segmenter, evaluation: Evaluation, name: str) -> None:
        """Compile the passes of an evaluation whose images have one size, if numerics say so.

        Args:
            name: of the network, for messages.

        Raises:
            UserError: if the network cannot be compiled as one graph.
        """
        mode, size = self.setup.numerics.compile, network_size(evaluation, self.recipe)
        if mode is None or size is None:
            return
        batch_size = min(self._asked_batch, len(self.images(evaluation)))
        shape = (batch_size, 3, *size)
        images = torch.zeros(shape, dtype=torch.uint8, device=self.setup.device)
        with torch.inference_mode():
            run = partial(forward, model.eval(), setup=self.setup)
            model.compile_for(mode, images, run, name)

    def images(self, evaluation: Evaluation, times_read: int = 1) -> EvalImages:
        """Return the images of an evaluation, decoded once if they are read more than once."""
        if evaluation not in self.prepared:
            samples = limited(self.dataset.samples(evaluation.split), self.limit)
            images = EvalImages(self.dataset, samples, evaluation, self.recipe)
            keep_decoded(images, self.cache, evaluation.split, times_read, self.setup.beat)
            self.prepared[evaluation] = images
        return self.prepared[evaluation]
