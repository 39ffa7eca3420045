import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.errors import UserError
from bench.evaluate import Counts, evaluate
from bench.losses import build_loss
from bench.recipe import CrossEntropy

CPU = torch.device("cpu")


class Fixed(nn.Module):
    """Logits from the image's first channel: pixel value v predicts class v."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.one_hot(image[:, 0].long(), 3).permute(0, 3, 1, 2) * 4.0


def run(batches: list) -> Counts:
    loss_fn = build_loss(CrossEntropy(), 3, CPU)
    return evaluate(Fixed(), batches, loss_fn, 3, CPU, "fp32", lambda: None)


def image(values: list[list[int]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).expand(3, -1, -1)


def target(values: list[list[int]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def test_by_hand() -> None:
    batch = (
        [image([[0, 1], [2, 2]]), image([[0, 0], [0, 0]])],
        [target([[0, 1], [1, 255]]), target([[0, 0], [255, 2]])],
        ["a", "b"],
    )
    counts = run([batch])
    assert counts.ids == ("a", "b")
    assert counts.per_image.dtype == np.uint32
    assert counts.per_image[0].tolist() == [[1, 2, 0], [1, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert counts.per_image[1].tolist() == [[2, 0, 1], [3, 0, 0], [2, 0, 0], [1, 0, 0]]
    assert counts.confusion.tolist() == [[3, 0, 0], [0, 1, 1], [1, 0, 0]]
    right = -np.log(np.exp(4) / (np.exp(4) + 2))
    assert counts.loss == pytest.approx((4 * right + 2 * (right + 4)) / 6, rel=1e-6)


def test_images_of_several_sizes_in_a_batch() -> None:
    batch = (
        [image([[0, 1]]), image([[2], [2]])],
        [target([[0, 1]]), target([[2], [0]])],
        ["a", "b"],
    )
    counts = run([batch])
    assert counts.per_image[:, 2].sum(0).tolist() == [1, 1, 1]


def test_predictions_are_scored_at_the_targets_size() -> None:
    batch = ([image([[0, 2]])], [target([[0, 0, 2, 2], [0, 0, 2, 2]])], ["a"])
    counts = run([batch])
    assert counts.per_image[0, 0].sum() == 8
    assert counts.confusion.diagonal().sum() == 8


def test_all_void() -> None:
    counts = run([([image([[0, 1]])], [target([[255, 255]])], ["a"])])
    assert np.isnan(counts.loss)
    assert counts.per_image[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_batches_do_not_matter() -> None:
    rng = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 3, (3, 5, 5), generator=rng, dtype=torch.uint8) for _ in range(6)]
    truths = [torch.randint(0, 3, (5, 5), generator=rng, dtype=torch.uint8) for _ in range(6)]
    ids = list("abcdef")
    one = run([(images, truths, ids)])
    two = run([(images[:4], truths[:4], ids[:4]), (images[4:], truths[4:], ids[4:])])
    assert np.array_equal(one.per_image, two.per_image)
    assert one.loss == pytest.approx(two.loss)


def test_a_fault_of_the_data_is_raised() -> None:
    with pytest.raises(UserError, match="broken"):
        run([UserError("broken")])
