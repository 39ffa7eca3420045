"""Augmentation with albumentations' names and arguments; only this file imports it."""

import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read when albumentations is imported
import albumentations as A
from albumentations.augmentations.crops.transforms import CropSizeError

from bench.datasets.base import IGNORE_INDEX, Pair
from bench.errors import UserError
from bench.lookup import unknown
from bench.suite.augment_presets import PRESETS, one_transform

BACKEND = f"albumentations {A.__version__}"
TRANSFORMS: dict[str, type[Any]] = {
    name: item
    for name, item in vars(A).items()
    if isinstance(item, type)
    and issubclass(item, A.BasicTransform | A.BaseCompose)
    and not item.__module__.endswith("transforms_interface")
    and item is not A.BaseCompose
}
# These pad masks with class 0, and no argument changes that.
REFUSED = {
    "GridElasticDeform": "use ElasticTransform or GridDistortion",
    "FrequencyMasking": "use XYMasking",
    "TimeMasking": "use XYMasking",
}
WRONG_ARGUMENT = r"(?s).*(not valid|[Ii]nvalid|adjusted)"  # in warnings of albumentations
CALL_ERRORS = (ValueError, TypeError, RuntimeError, LookupError, cv2.error, CropSizeError)
cv2.setNumThreads(0)


def build_transform(item: Mapping[str, Mapping[str, Any]]) -> Any:
    """Build one transform from `{Name: {argument: value}}`, padding masks with void.

    Raises:
        UserError: for an unknown name or argument, or a value that albumentations rejects.
    """
    [(name, given)] = item.items()
    if name not in TRANSFORMS:
        raise UserError(unknown("transform", name, [*TRANSFORMS, *PRESETS]))
    if name in REFUSED:
        raise UserError(f"{name} pads masks with class 0 instead of void; {REFUSED[name]}.")
    if not isinstance(given, Mapping):
        raise UserError(f"{name} takes {{argument: value}}, not {given!r}.")
    args = dict(given)
    if isinstance(args.get("transforms"), list | tuple):
        args["transforms"] = [build_transform(one_transform(inner)) for inner in args["transforms"]]
    schema = getattr(TRANSFORMS[name], "InitSchema", None)
    fields = schema.model_fields if schema is not None else {}
    # Dropouts do not change the mask by default (None); the rest must not pad it with class 0.
    taken = inspect.signature(TRANSFORMS[name]).parameters
    if "fill_mask" in taken and taken["fill_mask"].default is not None:
        args.setdefault("fill_mask", IGNORE_INDEX)
    if "area_for_downscale" in fields:
        args.setdefault("area_for_downscale", "image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to use another transform
        warnings.filterwarnings("error", WRONG_ARGUMENT)
        try:
            return TRANSFORMS[name](**args)
        except (TypeError, ValueError, UserWarning) as error:
            wrong = sorted(args.keys() - fields.keys() - {"p"}) if fields else []
            if wrong:
                raise UserError(unknown(f"argument of {name}", wrong[0], fields)) from error
            lines = [line for line in str(error).splitlines() if "errors.pydantic.dev" not in line]
            first = "; ".join(lines[:4])
            raise UserError(f"albumentations rejects {name}: {first}") from error


class Augment:
    """A chain of transforms whose randomness depends only on a seed."""

    def __init__(self, items: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
        self.items = tuple(items)
        self.compose = A.Compose([build_transform(item) for item in items])
        self.compose.set_mask_interpolation(cv2.INTER_NEAREST)

    def __call__(self, pair: Pair, stream: tuple[int, ...]) -> Pair:
        """Transform image and target together.

        Args:
            stream: seeds the random generators, such as (seed, epoch, index).
        """
        # Not compose.set_random_seed: it gives every transform the same seed, so that two
        # flips with p=0.5 always happen together. All share one generator instead.
        seeds = np.random.SeedSequence(stream)
        state = np.random.default_rng(seeds), random.Random(int(seeds.generate_state(1)[0]))
        _share(self.compose, *state)
        try:
            done = self.compose(image=pair[0], mask=pair[1])
        except CALL_ERRORS as error:
            height, width = pair[1].shape
            raise UserError(f"augment fails on {width}x{height} pixels: {error}") from error
        image, mask = done["image"], done["mask"]
        if not (_is_uint8(image, 3) and image.shape[2] == 3 and _is_uint8(mask, 2)):
            raise UserError(
                "augment must leave the image uint8 (H, W, 3) and the mask uint8 (H, W); "
                "normalisation comes later (leave out Normalize, ToFloat, ToTensorV2, …)."
            )
        return image, mask


def _is_uint8(array: Any, num_dims: int) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == num_dims


def _share(transform: Any, generator: np.random.Generator, py_random: random.Random) -> None:
    transform.random_generator, transform.py_random = generator, py_random
    for inner in getattr(transform, "transforms", ()):
        _share(inner, generator, py_random)
