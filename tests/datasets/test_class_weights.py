"""Class weights, against numbers worked by hand and those of the documents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import make_camvid
from pydantic import ValidationError

from bench.datasets.base import Dataset, Sample
from bench.datasets.camvid import CamVid
from bench.datasets.class_weights import RULES, ClassCounts, class_counts, class_weights
from bench.datasets.registry import open_dataset
from bench.errors import UserError
from bench.suite.loss import CrossEntropy
from bench.training.losses import PixelCrossEntropy, build_loss, with_counted_weights

COUNTS = ClassCounts(
    pixels=np.array([60, 30, 10, 0]),
    image_pixels=np.array([100, 50, 50, 0]),
    images=np.array([2, 1, 1, 0]),
)
IDD = [  # nSamples of the IDD document: pixels of each of its 27 classes in 4019 images
    *(2198453584, 519609102, 28929892, 126362539, 58804972, 59032134, 94293190, 2569952),
    *(101519794, 163659019, 105075839, 47400301, 30998126, 133835645, 135950687, 41339482),
    *(15989829, 104795610, 8062798, 450973, 94820222, 341805135, 557016609, 71159311),
    *(1465165566, 1823922767, 2775322),
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("inverse", [1 / 60 / 0.15, 1 / 30 / 0.15, 1 / 10 / 0.15, 0]),
        ("one_minus_frequency", [0.4, 0.7, 0.9, 1.0]),
        ("enet", [1 / np.log(1.62), 1 / np.log(1.32), 1 / np.log(1.12), 1 / np.log(1.02)]),
        ("median_frequency", [1.0, 1.0, 3.0, 0]),  # frequencies 0.6, 0.6, 0.2
    ],
)
def test_by_hand(rule: str, expected: list[float]) -> None:
    assert class_weights(rule, COUNTS).tolist() == pytest.approx(expected)


def test_the_weights_of_the_idd_document() -> None:
    total = 4019 * 1080 * 1920
    assert sum(IDD) == total
    pixels = np.array(IDD)
    counts = ClassCounts(pixels, pixels, pixels)
    assert class_weights("one_minus_frequency", counts).tolist() == pytest.approx(
        [1 - x / total for x in IDD], abs=1e-15
    )
    assert class_weights("one_minus_frequency", counts)[0] == pytest.approx(0.7362, abs=5e-5)


def test_the_sum_of_inverse_weights_is_one() -> None:
    assert class_weights("inverse", COUNTS).sum() == pytest.approx(1)


@pytest.mark.parametrize("rule", RULES)
def test_all_void_weighs_nothing(rule: str) -> None:
    none = np.zeros(3, np.int64)
    with pytest.raises(UserError, match=f"class_weights {rule}: no pixel of the training images"):
        class_weights(rule, ClassCounts(none, none, none))


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="At least one class needs a weight above 0"):
        CrossEntropy.model_validate({"class_weights": [0, 0, 0]})


def test_rules_by_name() -> None:
    with pytest.raises(UserError, match="Did you mean 'inverse'"):
        class_weights("invers", COUNTS)


@pytest.fixture
def camvid(tmp_path: Path) -> Dataset:
    return open_dataset(
        "camvid", "camvid", None, {"partial": True}, {"camvid": make_camvid(tmp_path)}
    )


def test_pixels_are_counted(camvid: Dataset) -> None:
    counts = class_counts(camvid, "train", camvid.samples("train"))
    targets = [camvid.read(sample)[1] for sample in camvid.samples("train")]
    for label in range(11):
        having = [target for target in targets if (target == label).any()]
        assert counts.pixels[label] == sum((target == label).sum() for target in targets)
        assert counts.images[label] == len(having)
        assert counts.image_pixels[label] == sum((target != 255).sum() for target in having)


def test_pixels_are_counted_once(camvid: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = class_counts(camvid, "train", camvid.samples("train"))
    part = class_counts(camvid, "train", camvid.samples("train")[:1])
    assert part.pixels.sum() < before.pixels.sum()

    def fail(self: CamVid, sample: Sample) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(CamVid, "read_target", fail)
    again = class_counts(camvid, "train", camvid.samples("train"))
    assert np.array_equal(before.pixels, again.pixels)


def test_a_rule_becomes_numbers() -> None:
    spec = CrossEntropy.model_validate({"class_weights": "enet"})
    loss = build_loss(with_counted_weights(spec, lambda: COUNTS), 4, torch.device("cpu"), 0.4)
    [(_, term)] = loss.terms
    assert isinstance(term, PixelCrossEntropy)
    assert term.class_weights is not None
    assert term.class_weights.tolist() == pytest.approx(class_weights("enet", COUNTS).tolist())
    plain = CrossEntropy.model_validate({"class_weights": "none"})
    assert plain.class_weights is None
    assert with_counted_weights(plain, lambda: pytest.fail("counted")) is plain
