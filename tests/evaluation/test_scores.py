"""Scores against numbers worked by hand and against torchmetrics."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.segmentation import mean_iou

from bench.evaluation.confusion import count_pixels, per_class
from bench.evaluation.scores import class_iou, constant_prediction, finite, num_averaged, scores

HAND = np.array(
    [
        # class 0: 6 true, 5 predicted, 4 hit; class 1: 4, 5, 3; class 2 absent from both
        [[6, 4, 0], [5, 5, 0], [4, 3, 0], [1, 0, 0]],
    ]
)


def test_by_hand() -> None:
    found = scores(HAND)
    assert found["pixel_accuracy"] == pytest.approx(7 / 10)
    assert found["miou"] == pytest.approx((4 / 7 + 3 / 6) / 2)
    assert found["mean_pixel_accuracy"] == pytest.approx((4 / 6 + 3 / 4) / 2)
    assert found["dice"] == found["f1"] == pytest.approx((8 / 11 + 6 / 9) / 2)
    assert found["precision"] == pytest.approx((4 / 5 + 3 / 5) / 2)
    assert found["sensitivity"] == pytest.approx((4 / 6 + 3 / 4) / 2)
    assert found["specificity"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert found["fw_iou"] == pytest.approx(0.6 * 4 / 7 + 0.4 * 3 / 6)
    assert num_averaged(HAND) == 2
    np.testing.assert_allclose(class_iou(HAND), [4 / 7, 0.5, np.nan])


def test_a_class_predicted_but_never_true_counts_as_zero() -> None:
    counts = np.array([[[4, 0], [3, 1], [3, 0], [0, 0]]])
    assert scores(counts)["miou"] == pytest.approx((3 / 4 + 0) / 2)
    assert scores(counts)["mean_pixel_accuracy"] == pytest.approx(3 / 4)


def test_all_void_has_no_score() -> None:
    counts = np.zeros((2, 4, 3), int)
    assert all(np.isnan(v) for v in scores(counts).values())
    assert set(finite(scores(counts)).values()) == {None}
    assert num_averaged(counts) == 0


def test_no_class_hit() -> None:
    counts = np.array([[[4, 0], [0, 4], [0, 0], [0, 0]]])
    found = scores(counts)
    assert found["miou"] == found["pixel_accuracy"] == found["dice"] == 0


def test_images_are_added_before_the_ratio() -> None:
    one = np.array([[2, 0], [2, 0], [2, 0], [0, 0]])
    other = np.array([[0, 8], [8, 0], [0, 0], [0, 0]])
    found = scores(np.stack([one, other]))
    assert found["miou"] == pytest.approx((2 / 10 + 0) / 2)


def test_the_floor_is_the_most_frequent_class() -> None:
    best, floor = constant_prediction(HAND)
    assert best == 0
    assert floor[0].tolist() == [[6, 4, 0], [10, 0, 0], [6, 0, 0], [1, 0, 0]]
    assert scores(floor)["miou"] == pytest.approx((6 / 10 + 0) / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_against_torchmetrics(num_classes: int, seed: int, void: float) -> None:
    rng = np.random.default_rng(seed)
    present = rng.integers(1, num_classes + 1)  # some classes may be absent from the truth
    target = rng.integers(0, present, (3, 5, 7)).astype(np.uint8)
    pred = torch.from_numpy(rng.integers(0, num_classes, (3, 5, 7)))
    target[rng.random(target.shape) < void] = 255
    truth = torch.from_numpy(target)
    found = scores(per_class(count_pixels(pred, truth, num_classes)).numpy())
    valid = truth != 255
    if not valid.any():
        return
    args = pred[valid], truth[valid].long()
    macro = {"num_classes": num_classes, "average": "macro"}
    assert found["pixel_accuracy"] == pytest.approx(float((args[0] == args[1]).float().mean()))
    assert found["miou"] == pytest.approx(
        float(tm.multiclass_jaccard_index(*args, num_classes=num_classes)), abs=1e-5
    )
    for name, reference in {
        "dice": tm.multiclass_f1_score,
        "precision": tm.multiclass_precision,
        "sensitivity": tm.multiclass_recall,
    }.items():
        assert found[name] == pytest.approx(float(reference(*args, **macro)), abs=1e-5), name
    confusion = tm.multiclass_confusion_matrix(*args, num_classes=num_classes)
    mine = count_pixels(pred, truth, num_classes)[:, :-1].sum(0)
    assert torch.equal(mine, confusion)


def test_specificity_against_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    pred = torch.from_numpy(rng.integers(0, 4, (2, 9, 9)))
    truth = torch.from_numpy(rng.integers(0, 4, (2, 9, 9)).astype(np.uint8))
    found = scores(per_class(count_pixels(pred, truth, 4)).numpy())
    reference = tm.multiclass_specificity(
        pred.flatten(), truth.long().flatten(), num_classes=4, average="macro"
    )
    assert found["specificity"] == pytest.approx(float(reference), abs=1e-6)


def test_per_image_iou_against_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    pred = torch.from_numpy(rng.integers(0, 3, (4, 8, 8)))
    truth = torch.from_numpy(rng.integers(0, 3, (4, 8, 8)).astype(np.uint8))
    counts = per_class(count_pixels(pred, truth, 3)).numpy()
    reference = mean_iou(pred, truth.long(), num_classes=3, per_class=True, input_format="index")
    for image, row in zip(counts, reference, strict=True):
        np.testing.assert_allclose(class_iou(image), row.numpy(), rtol=1e-6)
