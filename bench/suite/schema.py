"""What all parts of a suite's schema share: the base class and sizes."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    model_validator,
)

from bench.truth_values import mark_truth_values

Size = tuple[PositiveInt, PositiveInt]  # (H, W) in pixels
Fraction = Annotated[float, Field(ge=0, lt=1)]
STAND_IN_SIZE = (512, 512)
Cache = Literal["auto", "ram", "disk", "none"]


class Frozen(BaseModel):
    """Data that is validated once and never changes; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _mark_truth_values(cls, value: Any) -> Any:
        return mark_truth_values(cls, value)


class Side(Frozen):
    """A size given by one side; the other side follows from the image's aspect ratio."""

    longest: PositiveInt | None = Field(None, description="longest side in pixels")
    shortest: PositiveInt | None = Field(None, description="shortest side in pixels")

    @model_validator(mode="after")
    def _one_of_them(self) -> "Side":
        if (self.longest is None) == (self.shortest is None):
            raise ValueError("Give [H, W], {longest: pixels} or {shortest: pixels}.")
        return self


def _size_or_side(value: Any) -> Any:
    """Say in one sentence what a size may be, if a value is nothing like one."""
    is_size = isinstance(value, list | tuple) and len(value) == 2
    is_side = isinstance(value, Side) or (
        isinstance(value, dict) and set(value) <= {"longest", "shortest"}
    )
    if value is None or is_size or is_side or value in ("recipe", "stored"):
        return value
    raise ValueError(f"Give [H, W], {{longest: pixels}} or {{shortest: pixels}}, not {value!r}.")


SIZE_OR_SIDE = BeforeValidator(_size_or_side)


def sized(size: "Size | Side | None", height: int, width: int) -> Size:
    """Return the (H, W) that an image of height x width is resized to; None: not resized."""
    if size is None:
        return height, width
    if not isinstance(size, Side):
        return size
    wanted, side = size.longest, max(height, width)
    if size.shortest is not None:
        wanted, side = size.shortest, min(height, width)
    assert wanted is not None
    return max(1, round(height * wanted / side)), max(1, round(width * wanted / side))


def counted_size(size: "Size | Side | None") -> Size:
    """Return the (H, W) at which a network's MACs are counted if no image is at hand."""
    return sized(size, *STAND_IN_SIZE)


def size_text(size: "Size | Side | None") -> str:
    """Write a size for a protocol."""
    if size is None:
        return "as stored"
    if isinstance(size, Side):
        name = "longest" if size.shortest is None else "shortest"
        return f"{name} side {size.longest or size.shortest}"
    return f"{size[0]}x{size[1]}"
