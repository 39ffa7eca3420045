import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from bench.evaluation.inference import Counts, evaluate, predict, window_starts
from bench.evaluation.setup import Setup
from bench.machine.numerics import Numerics
from bench.suite.evaluation import Evaluation
from bench.suite.loss import CrossEntropy
from bench.training.losses import build_loss

CPU = torch.device("cpu")
WHOLE = Evaluation(split="val")


class Fixed(nn.Module):
    """Takes logits from the first image channel: pixel value v predicts class v."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.one_hot(image[:, 0].long(), 3).permute(0, 3, 1, 2) * 4.0


def setup(num_classes: int) -> Setup:
    loss_fn = build_loss(CrossEntropy(), num_classes, CPU, 0.4)
    return Setup(CPU, Numerics("cpu"), num_classes, loss_fn)


def run(batches: list) -> Counts:
    return evaluate(Fixed(), batches, WHOLE, setup(3))


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


class Corner(nn.Module):
    """Two classes; the second depends on the first channel and on how far right a pixel is."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image[:, 0].float() / 50
        ramp = torch.linspace(-1, 1, image.shape[-1])
        return torch.stack([torch.zeros_like(x), x + ramp], 1)


def predicted(size: tuple[int, int], **evaluation: object) -> torch.Tensor:
    image = torch.randint(0, 255, (2, 3, 12, 16), generator=torch.Generator().manual_seed(0))
    asked = Evaluation.model_validate({"split": "val"} | evaluation)
    return predict(Corner(), image.to(torch.uint8), size, asked, setup(1))


def test_one_window_is_the_whole_image() -> None:
    whole = predicted((12, 16))
    assert torch.equal(predicted((12, 16), method="sliding", crop=[20, 16]), whole)
    assert torch.equal(predicted((12, 16), scales=[1.0]), whole)


def test_windows_are_averaged_where_they_overlap() -> None:
    """Two windows of 10 columns cover 16: columns 6 to 9 are in both."""
    windows = predicted((12, 16), method="sliding", crop=[12, 10], stride=[12, 6])
    image = torch.randint(0, 255, (2, 3, 12, 16), generator=torch.Generator().manual_seed(0))
    left, right = Corner()(image[..., :10]), Corner()(image[..., 6:])
    assert torch.allclose(windows[..., :6], left[..., :6])
    assert torch.allclose(windows[..., 6:10], (left[..., 6:] + right[..., :4]) / 2)
    assert torch.allclose(windows[..., 10:], right[..., 4:])


@pytest.mark.parametrize(
    ("length", "window", "step", "starts"),
    [(16, 10, 6, [0, 6]), (16, 10, 4, [0, 4, 6]), (9, 10, 4, [0]), (20, 10, 10, [0, 10])],
)
def test_windows_cover_a_side(length: int, window: int, step: int, starts: list[int]) -> None:
    assert window_starts(length, window, step) == starts


def test_mirrored_views_are_mirrored_back() -> None:
    image = torch.randint(0, 255, (2, 3, 12, 16), generator=torch.Generator().manual_seed(0))
    both = predicted((12, 16), flip=True)
    mirrored = Corner()(image.flip(-1)).flip(-1).softmax(1)
    expected = (Corner()(image).softmax(1) + mirrored) / 2
    assert torch.allclose(both.softmax(1), expected, atol=1e-6)
    assert torch.allclose(both.exp().sum(1), torch.ones(2, 12, 16), atol=1e-6)


def test_a_scale_leaves_a_pixel() -> None:
    assert torch.isfinite(predicted((12, 16), scales=[0.001, 1.0])).all()


def test_scales_are_averaged_as_probabilities() -> None:
    half = F.interpolate(
        torch.randint(0, 255, (2, 3, 12, 16), generator=torch.Generator().manual_seed(0)).float(),
        (6, 8),
        mode="bilinear",
        align_corners=False,
    )
    small = F.interpolate(Corner()(half), (24, 32), mode="bilinear", align_corners=False)
    large = predicted((24, 32))
    expected = (small.softmax(1) + large.softmax(1)) / 2
    both = predicted((24, 32), scales=[0.5, 1.0])
    assert torch.allclose(both.softmax(1), expected, atol=1e-6)
    assert torch.isfinite(both).all()


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"method": "sliding"}, "method sliding needs crop"),
        ({"crop": [4, 4]}, "method whole takes no crop"),
        ({"method": "centre_crop", "crop": [4, 4]}, "give score_at: input, or size: stored"),
        ({"method": "sliding", "crop": [4, 4], "stride": [5, 4]}, "leaves gaps"),
        ({"stride": [4, 4]}, "stride is for method: sliding"),
        ({"size": [4, 4], "method": "sliding", "crop": [8, 8]}, "is larger than size"),
        ({"scales": []}, "at least 1 item"),
        ({"size": {"longest": 3, "shortest": 3}}, "Give .H, W., {longest: pixels}"),
    ],
)
def test_evaluations_that_do_not_agree(evaluation: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Evaluation.model_validate({"split": "val"} | evaluation)


def test_evaluations_name_themselves() -> None:
    asked = {"method": "sliding", "crop": [512, 512], "flip": True, "scales": [0.5, 1, 1.5]}
    described = Evaluation.model_validate({"split": "val"} | asked).description
    assert described == ("sliding 512x512, steps 341x341, with mirror image, scales 0.5, 1, 1.5")
    assert Evaluation(split="val").description == "whole"
