import math

import numpy as np
import pytest

from bench.evaluation import scores
from bench.evaluation.conventions import CONVENTIONS, by_conventions
from bench.suite.columns import CONVENTIONS as SHOWN

NAMES = ("background", "cat", "dog")
# Two images of (truth, prediction, intersection, on void). The first: 10 background of which 8
# are found and 2 called cat; 6 cat of which 3 are found and 3 called background; 4 void called
# 1 background, 3 cat. The second: 20 background, all found; 5 void, all called background.
COUNTS = np.array(
    [
        [[10, 6, 0], [11, 5, 0], [8, 3, 0], [1, 3, 0]],
        [[20, 0, 0], [20, 0, 0], [20, 0, 0], [5, 0, 0]],
    ]
)


def test_every_convention_has_a_column() -> None:
    assert set(SHOWN) == set(CONVENTIONS)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("miou_absent_0", (28 / 33 + 3 / 8 + 0) / 3),
        ("miou_no_background", 3 / 8),
        # background: truth 30 + 9, predicted 31 + 6, hit 28 + 6; cat: predicted 5 + 3
        ("miou_void_background", (34 / 42 + 3 / 11) / 2),
        ("miou_image", ((8 / 13 + 3 / 8) / 2 + 1) / 2),
        ("miou_batch", ((8 / 13 + 3 / 8) / 2 + 1) / 2),  # batches of one
        # first image: background 14, 12, 9; cat 6, 8, 3; second: background alone, 25
        ("miou_image_absent_0_void_background", ((9 / 17 + 3 / 11) / 3 + 1 / 3) / 2),
        ("miou_batch_void_background", ((9 / 17 + 3 / 11) / 2 + 1) / 2),
        ("pixel_accuracy_void_background", (8 + 3 + 20 + 1 + 5) / 45),
    ],
)
def test_by_hand(name: str, by_hand: float) -> None:
    assert by_conventions(COUNTS, NAMES, 1)[name] == pytest.approx(by_hand)


def test_one_batch_of_all_is_the_whole_split() -> None:
    official = scores.scores(COUNTS)["miou"]
    assert by_conventions(COUNTS, NAMES, 2)["miou_batch"] == pytest.approx(official)


def test_without_the_class_of_unlabeled_pixels() -> None:
    found = by_conventions(COUNTS, ("cat", "background", "unlabeled"), 1)
    assert found["miou_no_unlabeled"] == pytest.approx((28 / 33 + 3 / 8) / 2)
    assert math.isnan(by_conventions(COUNTS, ("a", "b", "c"), 1)["miou_void_background"])


def test_an_image_of_void_alone_is_no_image() -> None:
    void = np.array([[[0, 0, 0], [0, 0, 0], [0, 0, 0], [9, 0, 0]]])
    found = by_conventions(np.concatenate([COUNTS, void]), NAMES, 1)
    assert found["miou_image"] == by_conventions(COUNTS, NAMES, 1)["miou_image"]


def test_all_background_under_the_convention_of_a_document() -> None:
    """The U-Net of fcn-resnet50-voc2007, accuracy 0.751 and mIoU 0.0358, predicts only background.

    Each of 210 images has 751 thousandths of background (void among it) and a few other classes.
    """
    rng = np.random.default_rng(0)
    truth = np.zeros((210, 21), np.int64)
    truth[:, 0] = 701
    for image in range(210):
        for label in rng.choice(np.arange(1, 21), 3, replace=False):
            truth[image, label] = 83
    counts = np.zeros((210, 4, 21), np.int64)
    counts[:, 0] = truth
    counts[:, 3] = 0
    counts[:, 3, 0] = 50  # void, counted as background
    most, floor = scores.constant_prediction(counts)
    assert most == 0
    names = ("background", *(f"class {i}" for i in range(1, 21)))
    found = by_conventions(floor, names, 16)
    assert found["pixel_accuracy_void_background"] == pytest.approx(0.751, abs=5e-4)
    assert round(found["miou_image_absent_0_void_background"], 4) == 0.0358
    assert found["miou_image_absent_0_void_background"] == pytest.approx(
        found["pixel_accuracy_void_background"] / 21
    )
