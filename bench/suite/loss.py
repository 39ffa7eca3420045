"""The schema of losses."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

from bench.suite.schema import Fraction, Frozen

WeightRule = Literal["inverse", "one_minus_frequency", "enet", "median_frequency"]


class Term(Frozen):
    """What every loss in a sum has."""

    weight: PositiveFloat = Field(1.0, description="weight in a sum of losses")


class Weighted(Term):
    """A pixel-wise loss with optional class weights."""

    class_weights: WeightRule | tuple[NonNegativeFloat, ...] | None = Field(
        None,
        description="one weight per class, or a rule that computes them from the pixels of the "
        "training split",
    )

    @field_validator("class_weights", mode="before")
    @classmethod
    def _none_is_a_name(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("class_weights")
    @classmethod
    def _weigh_something(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not any(value):
            raise ValueError("At least one class needs a weight above 0.")
        return value


class CrossEntropy(Weighted):
    """Pixel-wise cross-entropy; void pixels are ignored."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Fraction = Field(
        0.0, description="share of the target that is spread over all classes"
    )


class Focal(Weighted):
    """Lin et al. 2017, arXiv 1708.02002: cross-entropy times (1 - p of the true class)^gamma."""

    name: Literal["focal"] = "focal"
    gamma: NonNegativeFloat = Field(2.0, description="exponent; 0: cross-entropy")


class Dice(Term):
    """One minus soft Dice, averaged over the classes in an image's truth, then over images.

    Milletari, Navab and Ahmadi 2016, arXiv 1606.04797, without the squares. Images are averaged,
    not pooled, so that a batch split into micro-batches has the same loss as the whole batch.
    """

    name: Literal["dice"] = "dice"


OneLoss = CrossEntropy | Focal | Dice


class Sum(Frozen):
    """A weighted sum of losses; a plain list is short for it."""

    name: Literal["sum"] = "sum"
    terms: tuple[Annotated[OneLoss, Field(discriminator="name")], ...] = Field(
        description="losses by name, or with options"
    )

    @field_validator("terms", mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"name": item} if isinstance(item, str) else item for item in value]

    @field_validator("terms")
    @classmethod
    def _add_something(cls, value: Any) -> Any:
        if not value:
            raise ValueError("A sum needs at least one loss.")
        return value


LossSpec = OneLoss | Sum


def terms(spec: LossSpec) -> tuple[OneLoss, ...]:
    """Return the losses that are added up, which may be a single one."""
    return spec.terms if isinstance(spec, Sum) else (spec,)
