import os
import subprocess
import sys
from collections import Counter
from inspect import signature

import albumentations
import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from bench.errors import UserError
from bench.loading.resize import resize_image, resize_target
from bench.loading.transforms import TRANSFORMS, Augment, build_transform
from bench.suite.augment_presets import PRESETS
from bench.suite.recipe import Recipe

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8)
TARGET = np.repeat(np.arange(4, dtype=np.uint8), 10 * 48).reshape(40, 48)
SIZE = {"height": 64, "width": 64}
BOX = {"x_min": 0, "y_min": 0, "x_max": 64, "y_max": 64}
STRONG = {  # arguments that make a transform reach as far beyond the image as possible
    "Affine": [
        {"rotate": [45, 45]},
        {"translate_percent": [0.3, 0.3]},
        {"scale": [0.5, 0.5], "shear": [20, 20]},
        {"rotate": [30, 30], "fit_output": True},
    ],
    "CenterCrop": [SIZE | {"pad_if_needed": True}],
    "Crop": [BOX | {"pad_if_needed": True}],
    "CropAndPad": [{"px": 9}, {"percent": 0.3, "keep_size": False}],
    "ElasticTransform": [{"alpha": 600, "sigma": 8}],
    "GridDistortion": [{"distort_limit": [0.5, 0.5]}],
    "MaskDropout": [{"max_objects": 9}],
    "OpticalDistortion": [{"distort_limit": [0.9, 0.9]}, {"distort_limit": [-0.9, -0.9]}],
    "Pad": [{"padding": 9}],
    "PadIfNeeded": [{"min_height": 64, "min_width": 64}],
    "Perspective": [{"scale": [0.3, 0.3], "fit_output": True}, {"scale": [0.3, 0.3]}],
    "RandomCrop": [SIZE | {"pad_if_needed": True}],
    "Rotate": [{"limit": [30, 30]}],
    "SafeRotate": [{"limit": [45, 45]}],
    "ThinPlateSpline": [{"scale_range": [0.9, 0.9]}],
}
NO_FILL = {  # use fill_mask for what they drop, not for padding; or need three dimensions
    *("CoarseDropout", "ConstrainedCoarseDropout", "Erasing", "GridDropout", "XYMasking"),
    *("CenterCrop3D", "CoarseDropout3D", "Pad3D", "PadIfNeeded3D", "RandomCrop3D"),
    "Mosaic",  # needs other images
    *("PiecewiseAffine", "ShiftScaleRotate", "FrequencyMasking", "TimeMasking"),  # refused
}
PADDING = sorted(
    name for name, one in TRANSFORMS.items() if "fill_mask" in signature(one).parameters
)


@pytest.mark.parametrize("name", [name for name in PADDING if name not in NO_FILL])
def test_no_pixel_of_padding_becomes_a_class(name: str) -> None:
    seen = set()
    for args in STRONG[name]:
        augment = Augment([{"Sequential": {"transforms": [{name: args | {"p": 1}}], "p": 1}}])
        for i in range(20):
            _, target = augment((IMAGE, TARGET + 1), (0, 0, i))
            seen |= set(np.unique(target).tolist())
    assert seen <= {1, 2, 3, 4, 255}
    assert 255 in seen  # it has padded


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_no_transform_makes_a_class_out_of_nothing(name: str) -> None:
    """Run every transform that works with its defaults, on a mask of one class."""
    if not issubclass(TRANSFORMS[name], albumentations.DualTransform):
        return
    try:
        augment = Augment([{name: (STRONG.get(name) or [{}])[0]}])
        seen = {
            int(value)
            for i in range(30)
            for value in np.unique(augment((IMAGE, np.full_like(TARGET, 7)), (0, 0, i))[1])
        }
    except (UserError, UserWarning):
        return  # it needs arguments, boxes or other images; those are above
    assert seen <= {7, 255}


def test_what_pads_with_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="GridElasticDeform pads masks with class 0.*use Elastic"):
        build_transform({"GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 9}})


@pytest.mark.parametrize(
    "name", ["Resize", "RandomScale", "LongestMaxSize", "SmallestMaxSize", "RandomResizedCrop"]
)
def test_masks_are_resized_by_the_nearest_pixel(name: str) -> None:
    """Use two distant labels: any mixture would be between them."""
    args = {
        "Resize": {"height": 13, "width": 17},
        "RandomScale": {"scale_limit": [-0.6, -0.6]},
        "LongestMaxSize": {"max_size": 70},
        "SmallestMaxSize": {"max_size": 11},
        "RandomResizedCrop": {"size": [31, 29]},
    }[name]
    _, target = Augment([{name: args | {"p": 1}}])((IMAGE, (TARGET % 2) * 200), (0, 0, 0))
    assert set(np.unique(target)) <= {0, 200}


def test_images_shrink_by_area() -> None:
    stripes = np.zeros((40, 48, 3), np.uint8)
    stripes[::2] = 255  # by area it is grey; by bilinear interpolation at a quarter it is not
    image, _ = Augment([{"Resize": {"height": 10, "width": 12, "p": 1}}])((stripes, TARGET), (0,))
    assert np.abs(image.astype(int) - 127).max() <= 1


PRESET_CASES = {
    "voc_standard": {"crop": [32, 36], "base_size": 40},
    "flip": {"vertical": True},
    "affine": {},
    "resized_crop": {"size": [20, 24]},
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    recipe = Recipe.model_validate(
        {"epochs": 1, "augment": [{name: PRESET_CASES[name]}]},
        context={"check_transform": build_transform},
    )
    augment = Augment(recipe.augment)
    shapes, seen = set(), set()
    for i in range(60):
        image, target = augment((IMAGE, TARGET + 1), (0, 0, i))
        assert image.shape == (*target.shape, 3)
        shapes.add(target.shape)
        seen |= set(np.unique(target).tolist())
    assert seen <= {1, 2, 3, 4, 255}
    assert shapes == {{"voc_standard": (32, 36), "resized_crop": (20, 24)}.get(name, TARGET.shape)}
    pads = name in ("voc_standard", "affine")
    assert (255 in seen) == pads


def test_a_preset_is_what_it_stands_for() -> None:
    def recipe(augment: object) -> Recipe:
        return Recipe.model_validate({"epochs": 1, "augment": augment})

    plain = recipe([{"HorizontalFlip": {"p": 0.5}}])
    assert recipe("flip") == recipe(["flip"]) == recipe([{"flip": {"vertical": False}}]) == plain
    affine = {"rotate": [-20, 20], "translate_percent": {"x": [-0.2, 0.2], "y": [-0.2, 0.2]}}
    assert recipe([{"affine": {}}]).augment == ({"Affine": affine | {"p": 1.0}},)
    with pytest.raises(ValidationError, match="voc_standard: The key 'crop' is required"):
        recipe("voc_standard")
    with pytest.raises(
        ValidationError, match="flip: Unknown key 'vertcal'. Did you mean 'vertical'"
    ):
        recipe([{"flip": {"vertcal": True}}])


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"voc_standard": {"crop": [9, 9], "scale": [2.0, 0.5]}}, "Give the smaller number first"),
        ({"resized_crop": {"size": [9, 9], "scale": [0.5, 3]}}, "albumentations rejects"),
    ],
)
def test_what_a_preset_stands_for_is_checked(preset: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(
            {"epochs": 1, "augment": [preset]}, context={"check_transform": build_transform}
        )


def test_a_preset_is_suggested() -> None:
    with pytest.raises(UserError, match="Did you mean 'voc_standard'"):
        build_transform({"voc_standrd": {}})


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
        ({"Affine": {"rotate": "x"}}, "albumentations rejects Affine"),
        ({"RandomCrop": {}}, "albumentations rejects RandomCrop: .*height"),
        ({"OneOf": {"transforms": [{"Flp": {}}]}}, "Unknown transform 'Flp'"),
        ({"OneOf": {"transforms": [5]}}, "Give one transform"),
    ],
)
def test_faults(item: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_transform(item)
    assert "https://" not in str(error.value)


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
    image, target = resize_image(IMAGE, (13, 17)), resize_target(TARGET, (13, 17))
    assert image.shape == (13, 17, 3)
    assert target.shape == (13, 17)
    assert target.dtype == np.uint8
    assert set(np.unique(target)) <= {0, 1, 2, 3}
    expected = cv2.resize(IMAGE, (17, 13), interpolation=cv2.INTER_AREA)
    assert np.array_equal(image, expected)
    assert resize_image(IMAGE, (40, 48)) is IMAGE


def test_nothing_looks_for_updates_of_albumentations() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    code = (
        "import bench.loading.transforms\n"
        "import albumentations.check_version\n"
        "assert albumentations.check_version.opener is None\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    "item",
    [
        {"ShiftScaleRotate": {"scale_limit": 0.5, "rotate_limit": 0, "p": 1}},
        {"PiecewiseAffine": {"scale": [0.03, 0.05]}},
        {"TimeReverse": {}},
    ],
)
def test_advice_to_use_another_transform_is_no_refusal(item: dict) -> None:
    assert type(build_transform(item)).__name__ in item


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"ShiftScaleRotate": {"scale_limt": 0.5}}, "Unknown argument of ShiftScaleRotate"),
        ({"MedianBlur": {"blur_limit": [2, 4]}}, "albumentations rejects MedianBlur: .*adjusted"),
        ({"Blur": {"blur_limit": [5, 3]}}, "albumentations rejects Blur: .*Invalid range"),
        ({"TimeMasking": {}}, "pads masks with class 0 instead of void; use XYMasking"),
    ],
)
def test_arguments_that_albumentations_would_change_are_refused(item: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_transform(item)
