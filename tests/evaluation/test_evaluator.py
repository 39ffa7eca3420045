"""The loaders of an evaluation are kept, and so is the batch size that fits."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.datasets.registry import open_dataset
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.setup import Setup
from bench.loading import loader as loaders
from bench.loading.loading import Loading
from bench.machine.numerics import Numerics
from bench.suite.evaluation import Evaluation
from bench.suite.loss import CrossEntropy
from bench.suite.recipe import Recipe
from bench.training.losses import build_loss

VAL, TRAIN = Evaluation(split="val"), Evaluation(split="train")


class Model(nn.Module):
    """A 1x1 convolution that runs out of memory on more than a few images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.conv, self.most = nn.Conv2d(3, 6, 1), most
        self.refused = 0

    def forward(self, image: Tensor) -> Tensor:
        if len(image) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("planted")
        return self.conv(image.float())


def evaluator(num_workers: int = 0) -> Evaluator:
    options = {"size": [16, 16], "num_train": 8, "num_val": 8, "num_test": 2}
    dataset = open_dataset("shapes", "shapes", None, options, {})
    cpu = torch.device("cpu")
    loss = build_loss(CrossEntropy(), 6, cpu, 0.4)
    setup = Setup(cpu, Numerics("cpu", micro_batch=8), 6, loss)
    recipe = Recipe.model_validate({"epochs": 3, "batch_size": 8, "on_oom": "accumulate"})
    return Evaluator(dataset, recipe, None, setup, "none", Loading(num_workers))


def test_what_fits_is_remembered() -> None:
    scores, model = evaluator(), Model(most=2)
    first = scores.count(model, VAL, times_read=3)
    assert model.refused == 2  # 8 and 4 images
    for _ in range(2):
        again = scores.count(model, VAL, times_read=3)
        assert (again.per_image == first.per_image).all()
    scores.count(model, TRAIN)
    assert model.refused == 2


def test_workers_start_once(tmp_path: Path) -> None:
    scores, model = evaluator(num_workers=1), Model(most=8)
    scores.count(model, VAL, times_read=3)
    first = scores.loaders[VAL][1].reading[0]
    assert first > 0  # the process id of the worker
    scores.count(model, VAL, times_read=3)
    assert scores.loaders[VAL][1].reading[0] == first
    scores.count(model, TRAIN)
    assert TRAIN not in scores.loaders  # it runs once


@pytest.mark.skipif(sys.platform != "linux", reason="forking is for Linux")
def test_the_start_method_is_named() -> None:
    assert loaders.START_METHOD == "fork"
    images = evaluator().images(VAL)
    made = loaders.eval_loader(images, 2, Loading(1))
    assert made.loader.multiprocessing_context.get_start_method() == "fork"
