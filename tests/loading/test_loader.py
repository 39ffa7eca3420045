import os
import signal

import pytest
import torch

from bench.datasets.base import Pair, Sample
from bench.datasets.registry import open_dataset
from bench.datasets.shapes import Shapes
from bench.errors import UserError
from bench.loading.images import EvalImages, TrainImages, limited
from bench.loading.loader import Loader, eval_loader, require_one_size, train_loader
from bench.loading.loading import Loading
from bench.suite.evaluation import Evaluation
from bench.suite.recipe import Recipe

RECIPE = Recipe.model_validate(
    {"epochs": 1, "size": [24, 20], "augment": [{"HorizontalFlip": {"p": 0.5}}, "GaussNoise"]}
)


def train_images() -> TrainImages:
    dataset = open_dataset("shapes", "shapes", None, {"size": [32, 32], "num_train": 10}, {})
    return TrainImages(dataset, dataset.samples("train"), RECIPE, seed=5)


def one_pass(num_workers: int, epoch: int = 0, start: int = 0) -> list[tuple]:
    loader, sampler = train_loader(train_images(), 4, 5, Loading(num_workers))
    sampler.epoch, sampler.start = epoch, start
    return list(loader)


def same(one: list[tuple], other: list[tuple]) -> bool:
    return len(one) == len(other) and all(
        a[2] == b[2] and torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_whole_and_of_the_recipes_size() -> None:
    batches = one_pass(0)
    assert len(batches) == 2
    ids = [name for batch in batches for name in batch[2]]
    assert len(set(ids)) == len(ids) == 8
    assert batches[0][0][0].shape == (3, 24, 20)
    assert batches[0][1][0].shape == (24, 20)
    assert batches[0][0][0].dtype == batches[0][1][0].dtype == torch.uint8


@pytest.mark.parametrize("num_workers", [1, 2])
def test_any_number_of_workers_gives_the_same(num_workers: int) -> None:
    assert same(one_pass(0, epoch=3), one_pass(num_workers, epoch=3))


def test_epochs_differ_and_can_begin_in_the_middle() -> None:
    assert not same(one_pass(0, epoch=0), one_pass(0, epoch=1))
    assert same(one_pass(0, epoch=2)[1:], one_pass(0, epoch=2, start=1))


def test_a_pass_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one_pass(0)
    one_pass(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_fewer_images_than_a_batch() -> None:
    with pytest.raises(UserError, match="10 training images cannot fill a batch of 11"):
        train_loader(train_images(), 11, 0, Loading())


def eval_images(**evaluation: object) -> EvalImages:
    dataset = open_dataset("shapes", "shapes", None, {"size": [32, 40], "num_val": 7}, {})
    asked = Evaluation.model_validate({"split": "val"} | evaluation)
    return EvalImages(dataset, dataset.samples("val"), asked, RECIPE)


def test_evaluation_gives_every_image_once() -> None:
    images = eval_images(size=[16, 16])
    batches = list(eval_loader(images, 3, Loading()))
    assert [name for batch in batches for name in batch[2]] == [s.id for s in images.samples]
    assert batches[0][0][0].shape == (3, 16, 16)
    assert batches[0][1][0].shape == (32, 40)


@pytest.mark.parametrize(
    ("evaluation", "image", "target"),
    [
        ({"size": "stored"}, (32, 40), (32, 40)),
        ({"size": "recipe"}, (24, 20), (32, 40)),
        ({"size": [16, 16], "score_at": "input"}, (16, 16), (16, 16)),
        ({"size": {"shortest": 16}}, (16, 20), (32, 40)),
        ({"size": {"longest": 20}, "score_at": "input"}, (16, 20), (16, 20)),
        ({"size": "stored", "method": "centre_crop", "crop": [10, 50]}, (10, 40), (10, 40)),
    ],
)
def test_sizes_of_evaluations(
    evaluation: dict, image: tuple[int, int], target: tuple[int, int]
) -> None:
    item = eval_images(**evaluation)[0, 0]
    assert item[0].shape == (3, *image)
    assert item[1].shape == target


def test_the_centre_is_the_centre() -> None:
    whole = eval_images(size="stored")[0, 0]
    crop = eval_images(size="stored", method="centre_crop", crop=[12, 20])[0, 0]
    assert torch.equal(crop[0], whole[0][:, 10:22, 10:30])
    assert torch.equal(crop[1], whole[1][10:22, 10:30])


def test_limits_spread_over_the_split() -> None:
    samples = list(range(100))
    assert limited(samples, None) == samples
    assert limited(samples, 3) == [0, 50, 99]
    assert len(limited(samples, 0.25)) == 25
    assert limited(samples, 200) == samples
    assert limited(samples, 0.001) == [0]


class Spoilt(Shapes):
    """Shapes with one sample that cannot be read, or that kills the process that reads it."""

    end = False

    def read(self, sample: Sample) -> Pair:
        if sample.id == "train/00003":
            if type(self).end:
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError("bad.jpg is truncated")
        return super().read(sample)


def spoilt(num_workers: int) -> Loader:
    dataset = Spoilt(None, Spoilt.Options(size=(32, 32), num_train=10))
    images = TrainImages(dataset, dataset.samples("train"), RECIPE, seed=5)
    return train_loader(images, 5, 0, Loading(num_workers))[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fault_comes_whole_from_a_worker(num_workers: int) -> None:
    with pytest.raises(UserError, match=r"^bad\.jpg is truncated$"):
        list(spoilt(num_workers))


def test_a_worker_that_ends_names_what_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoilt, "end", True)
    message = r"died while reading train/00003: DataLoader worker .*\. Check the file"
    loader = spoilt(2)
    with pytest.raises(UserError, match=message), loader.guarded():
        list(loader)


def test_sizes_of_a_batch_must_agree() -> None:
    images = [torch.zeros(3, 4, 5), torch.zeros(3, 4, 6)]
    with pytest.raises(UserError, match="different sizes: 4x5 and 4x6 .*Set recipe.size"):
        require_one_size(images, ["a", "b"])
