from collections import Counter

import cv2
import numpy as np
import pytest

from bench.data.transforms import TRANSFORMS, Augment, build_transform, resize
from bench.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8)
TARGET = np.repeat(np.arange(4, dtype=np.uint8), 10 * 48).reshape(40, 48)
GEOMETRIC = [
    {"Affine": {"rotate": [45, 45], "p": 1}},
    {"Rotate": {"limit": [30, 30], "p": 1}},
    {"Affine": {"translate_percent": [0.3, 0.3], "p": 1}},
    {"PadIfNeeded": {"min_height": 64, "min_width": 64, "p": 1}},
    {"RandomCrop": {"height": 64, "width": 64, "pad_if_needed": True, "p": 1}},
    {"Perspective": {"scale": [0.2, 0.2], "p": 1}},
    {"ElasticTransform": {"alpha": 300, "sigma": 8, "p": 1}},
    {"GridDistortion": {"p": 1}},
    {"OpticalDistortion": {"p": 1}},
    {"Sequential": {"transforms": [{"SafeRotate": {"limit": [45, 45], "p": 1}}], "p": 1}},
]


@pytest.mark.parametrize("item", GEOMETRIC, ids=lambda item: next(iter(item)))
def test_padding_is_void_and_labels_stay_labels(item: dict) -> None:
    _, target = Augment([item])((IMAGE, TARGET + 1), (0, 0, 0))
    assert set(np.unique(target)) <= {1, 2, 3, 4, 255}


def test_the_same_stream_gives_the_same_numbers() -> None:
    augment = Augment(
        [{"RandomScale": {"p": 1}}, {"OneOf": {"transforms": ["HorizontalFlip", "GaussianBlur"]}}]
    )
    first = augment((IMAGE, TARGET), (7, 1, 3))
    augment((IMAGE, TARGET), (7, 1, 4))
    again = augment((IMAGE, TARGET), (7, 1, 3))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_transforms_draw_independently() -> None:
    """albumentations' own seeding gives every transform the same draws."""
    augment = Augment([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}])
    corner = np.zeros((4, 4), np.uint8)
    corner[0, 0] = 1
    image = np.zeros((4, 4, 3), np.uint8)
    seen = Counter(int(augment((image, corner), (0, 0, i))[1].argmax()) for i in range(400))
    assert set(seen) == {0, 3, 12, 15}
    assert all(60 < count < 140 for count in seen.values())


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"HorizontalFlp": {}}, "Unknown transform 'HorizontalFlp'. Did you mean 'HorizontalFlip'"),
        ({"HorizontalFlip": {"q": 1}}, "Unknown argument of HorizontalFlip 'q'"),
        ({"Affine": {"rotate": "x"}}, "albumentations refuses Affine"),
        ({"RandomCrop": {}}, "albumentations refuses RandomCrop: .*height"),
        ({"OneOf": {"transforms": [{"Flp": {}}]}}, "Unknown transform 'Flp'"),
        ({"OneOf": {"transforms": [5]}}, "Give one transform"),
    ],
)
def test_faults(item: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_transform(item)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"RandomCrop": {"height": 99, "width": 99}}, "augment fails on 48x40 pixels"),
        ({"Normalize": {}}, "augment must leave the image uint8"),
        ({"ToFloat": {}}, "augment must leave the image uint8"),
    ],
)
def test_transforms_that_fail_or_change_the_type(item: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augment([item])((IMAGE, TARGET), (0, 0, 0))


def test_dropouts_leave_the_mask_alone() -> None:
    _, target = Augment([{"CoarseDropout": {"p": 1}}])((IMAGE, TARGET), (0, 0, 0))
    assert np.array_equal(target, TARGET)


def test_base_classes_are_no_transforms() -> None:
    assert not {"BasicTransform", "DualTransform", "BaseCompose"} & set(TRANSFORMS)


def test_resizing_mixes_no_labels() -> None:
    image, target = resize((IMAGE, TARGET), (13, 17))
    assert image.shape == (13, 17, 3)
    assert target.shape == (13, 17)
    assert target.dtype == np.uint8
    assert set(np.unique(target)) <= {0, 1, 2, 3}
    expected = cv2.resize(IMAGE, (17, 13), interpolation=cv2.INTER_AREA)
    assert np.array_equal(image, expected)
    assert resize((IMAGE, TARGET), (40, 48))[0] is IMAGE
