from pathlib import Path

import pytest
import torch

from bench.data import open_dataset
from bench.data.loader import (
    EvalImages,
    TrainImages,
    eval_loader,
    limited,
    require_one_size,
    train_loader,
)
from bench.errors import UserError
from bench.recipe import Recipe

RECIPE = Recipe.model_validate(
    {"epochs": 1, "size": [24, 20], "augment": [{"HorizontalFlip": {"p": 0.5}}, "GaussNoise"]}
)


def train_images() -> TrainImages:
    dataset = open_dataset("shapes", "shapes", None, {"size": [32, 32], "num_train": 10}, {})
    return TrainImages(dataset, dataset.samples("train"), RECIPE, seed=5)


def one_pass(num_workers: int, epoch: int = 0, start: int = 0) -> list[tuple]:
    loader, sampler = train_loader(train_images(), 4, 5, num_workers, pin_memory=False)
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
    with pytest.raises(UserError, match="10 training images are fewer than a batch of 11"):
        train_loader(train_images(), 11, 0, 0, pin_memory=False)


def test_evaluation_gives_every_image_once() -> None:
    dataset = open_dataset("shapes", "shapes", None, {"size": [32, 32], "num_val": 7}, {})
    images = EvalImages(dataset, dataset.samples("val"), (16, 16), "stored")
    batches = list(eval_loader(images, 3, 0, pin_memory=False))
    assert [name for batch in batches for name in batch[2]] == [s.id for s in images.samples]
    assert batches[0][0][0].shape == (3, 16, 16)
    assert batches[0][1][0].shape == (32, 32)
    at_input = EvalImages(dataset, dataset.samples("val"), (16, 16), "input")
    assert at_input[0, 0][1].shape == (16, 16)


def test_limits_spread_over_the_split() -> None:
    samples = list(range(100))
    assert limited(samples, None) == samples
    assert limited(samples, 3) == [0, 50, 99]
    assert len(limited(samples, 0.25)) == 25
    assert limited(samples, 200) == samples
    assert limited(samples, 0.001) == [0]


def test_a_fault_is_returned_whole_from_a_worker(tmp_path: Path) -> None:
    images = train_images()

    def fail(sample: object) -> None:
        raise UserError("bad.jpg is truncated")

    images.dataset.read = fail
    for num_workers in (0, 1):
        loader, _ = train_loader(images, 4, 0, num_workers, pin_memory=False)
        batch = next(iter(loader))
        assert isinstance(batch, UserError)
        assert str(batch) == "bad.jpg is truncated"


def test_sizes_of_a_batch_must_agree() -> None:
    images = [torch.zeros(3, 4, 5), torch.zeros(3, 4, 6)]
    with pytest.raises(UserError, match="images of 4x5 and 4x6 .*give recipe.size"):
        require_one_size(images, ["a", "b"])
