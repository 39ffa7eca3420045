"""Augmentation presets of published recipes; each stands for a list of plain transforms."""

from collections.abc import Mapping
from typing import Any

from pydantic import PositiveFloat, PositiveInt, ValidationError, field_validator

from bench.errors import Fault, Faults, UserError
from bench.suite.schema import Fraction, Frozen, Size
from bench.suite.validation_errors import describe

Transform = dict[str, dict[str, Any]]


def one_transform(item: Any) -> Transform:
    """Read one entry of a list of transforms: a name, or {name: arguments}.

    Raises:
        UserError: if it is neither.
    """
    named = {item: {}} if isinstance(item, str) else item
    if not isinstance(named, Mapping) or len(named) != 1:
        raise UserError(f"Give one transform: {{Name: {{argument: value}}}}, not {item!r}.")
    return {name: {} if args is None else args for name, args in named.items()}


def check_range(bounds: tuple[float, float]) -> tuple[float, float]:
    """Check that a range does not end below its start."""
    if bounds[0] > bounds[1]:
        raise ValueError(f"Give the smaller number first, not {bounds}.")
    return bounds


class VocStandard(Frozen):
    """Random scale, crop, rotation, flip and blur; padding is void.

    base_size: images are first resized to this longest side; if not given, they keep recipe.size
        or their stored size.
    """

    crop: Size
    base_size: PositiveInt | None = None
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)
    degrees: PositiveFloat = 10

    _check_range = field_validator("scale")(check_range)

    def transforms(self) -> list[Transform]:
        """Return the transforms that this preset stands for."""
        height, width = self.crop
        low, high = self.scale
        base: list[Transform] = []
        if self.base_size is not None:
            base = [{"LongestMaxSize": {"max_size": self.base_size}}]
        return [
            *base,
            {"RandomScale": {"scale_limit": [low - 1, high - 1], "p": 1.0}},
            {"PadIfNeeded": {"min_height": height, "min_width": width}},
            {"RandomCrop": {"height": height, "width": width}},
            {"Rotate": {"limit": [-self.degrees, self.degrees], "border_mode": 0, "p": 1.0}},
            {"HorizontalFlip": {"p": 0.5}},
            {"GaussianBlur": {"blur_limit": 0, "sigma_limit": [0.1, 1.0], "p": 0.5}},
        ]


class Flip(Frozen):
    """Flips, each with a probability of one half."""

    horizontal: bool = True
    vertical: bool = False

    def transforms(self) -> list[Transform]:
        """Return the transforms that this preset stands for."""
        names = {"HorizontalFlip": self.horizontal, "VerticalFlip": self.vertical}
        return [{name: {"p": 0.5}} for name, wanted in names.items() if wanted]


class Affine(Frozen):
    """Random rotation, and random translation by up to a share of each side."""

    degrees: PositiveFloat = 20
    translate: Fraction = 0.2

    def transforms(self) -> list[Transform]:
        """Return the transforms that this preset stands for."""
        shift = [-self.translate, self.translate]
        translate = {"x": shift, "y": shift}
        rotate = [-self.degrees, self.degrees]
        return [{"Affine": {"rotate": rotate, "translate_percent": translate, "p": 1.0}}]


class ResizedCrop(Frozen):
    """A crop of random area and aspect ratio, resized; half of the images are flipped."""

    size: Size
    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    _check_range = field_validator("scale", "ratio")(check_range)

    def transforms(self) -> list[Transform]:
        """Return the transforms that this preset stands for."""
        crop = {"size": list(self.size), "scale": list(self.scale), "ratio": list(self.ratio)}
        return [{"RandomResizedCrop": crop | {"p": 1.0}}, {"HorizontalFlip": {"p": 0.5}}]


Preset = VocStandard | Flip | Affine | ResizedCrop
PRESETS: dict[str, type[Preset]] = {
    "voc_standard": VocStandard,
    "flip": Flip,
    "affine": Affine,
    "resized_crop": ResizedCrop,
}


def spelled_out(name: str, args: Mapping[str, Any]) -> list[Transform]:
    """Return the transforms that a preset stands for.

    Raises:
        Faults: if the preset does not take the arguments.
    """
    preset = PRESETS[name]
    try:
        return preset.model_validate(dict(args)).transforms()
    except ValidationError as error:
        found = [Fault((), f"{name}: {fault.message}") for fault in describe(error, preset)]
        raise Faults(found) from error
