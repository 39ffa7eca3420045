"""How a model is trained: the schema of recipes, and changes of them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench import yaml_file
from bench.errors import Fault, Faults, UserError
from bench.presets import PRESETS, Transform, spelled_out
from bench.schema import Fraction, Frozen, Side, Size, describe

WeightRule = Literal["inverse", "one_minus_frequency", "enet", "median_frequency"]


def named(value: object) -> object:
    """Read a plain name as a part with its defaults."""
    return {"name": value} if isinstance(value, str) else value


class Adam(Frozen):
    """Kingma and Ba 2015, arXiv 1412.6980; weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0


class AdamW(Frozen):
    """Loshchilov and Hutter 2019, arXiv 1711.05101: decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.01


class SGD(Frozen):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 0.0


class Constant(Frozen):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


class Poly(Frozen):
    """lr (1 - step / steps) ^ power, each step."""

    name: Literal["poly"] = "poly"
    power: PositiveFloat = 0.9


class Cosine(Frozen):
    """Half a cosine from lr to eta_min, moved once an epoch (arXiv 1608.03983, one cycle)."""

    name: Literal["cosine"] = "cosine"
    eta_min: NonNegativeFloat = 0.0


class Step(Frozen):
    """lr times gamma every so many epochs."""

    name: Literal["step"] = "step"
    every: PositiveInt = Field(description="epochs")
    gamma: PositiveFloat = 0.1


class Warmup(Frozen):
    """A linear rise from factor x lr to lr over the first steps, times the schedule."""

    steps: PositiveInt
    factor: Annotated[float, Field(ge=0, le=1)] = 0.1


class CrossEntropy(Frozen):
    """Pixel-wise cross-entropy; void pixels count for nothing."""

    name: Literal["cross_entropy"] = "cross_entropy"
    class_weights: WeightRule | tuple[NonNegativeFloat, ...] | None = Field(
        None, description="one a class, or a rule over the pixels of the training split"
    )
    label_smoothing: Fraction = 0.0

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


class Recipe(Frozen):
    """How a model is trained."""

    epochs: NonNegativeInt | None = Field(None, description="0 scores the model as it is")
    steps: PositiveInt | None = Field(None, description="optimizer steps, instead of epochs")
    batch_size: PositiveInt = Field(8, description="images per optimizer step")
    accumulate: PositiveInt = Field(1, description="micro-batches that a batch is split into")
    size: Size | Side | None = Field(
        None,
        description="[H, W], {longest: px} or {shortest: px} that images are resized to before "
        "augmentation; null: as stored",
    )
    augment: tuple[Transform, ...] = Field(
        (),
        description="albumentations' names and arguments in order; also the presets "
        "voc_standard, flip, affine and resized_crop",
    )
    optimizer: Annotated[Adam | AdamW | SGD, Field(discriminator="name")] = Adam()
    schedule: Annotated[Constant | Poly | Cosine | Step, Field(discriminator="name")] = Constant()
    warmup: Warmup | None = None
    loss: CrossEntropy = CrossEntropy()
    aux_weight: NonNegativeFloat = Field(
        0.4,
        description="of the losses of a network's auxiliary heads, beside 1 of its logits'",
        json_schema_extra={"added": True},
    )
    memory: Literal["keep", "checkpoint"] = Field(
        "keep",
        description="checkpoint: activations are computed again in the backward pass",
        json_schema_extra={"added": True},
    )
    clip_grad: PositiveFloat | None = Field(None, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the GPU has it, fp32 on the CPU"
    )
    validate_every: PositiveInt = Field(1, description="epochs between scores on splits.select")

    _short = field_validator("optimizer", "schedule", "loss", mode="before")(named)

    @field_validator("augment", mode="before")
    @classmethod
    def _read_augment(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str | dict):
            value = [value]
        if not isinstance(value, list | tuple):
            return value
        check: Callable[[Any], None] | None = (info.context or {}).get("check_transform")
        faults: list[Fault] = []
        transforms: list[Transform] = []
        for i, item in enumerate(value):
            try:
                transforms += _transforms(item, check)
            except Faults as error:
                faults += [Fault((i,), fault.message) for fault in error.faults]
            except UserError as error:
                faults.append(Fault((i,), str(error)))
        if faults:
            raise Faults(faults)
        return transforms

    @model_validator(mode="after")
    def _check_lengths(self) -> "Recipe":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("A recipe has either epochs or steps.")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be split into {self.accumulate} equal "
                "micro-batches; accumulate must divide it."
            )
        return self

    @property
    def micro_batch(self) -> int:
        """Images that pass through the network at once."""
        return self.batch_size // self.accumulate


def _transforms(item: Any, check: Callable[[Any], None] | None) -> list[Transform]:
    """Read one entry of augment: a name, or {name: arguments}; a preset becomes several.

    Raises:
        Faults, UserError: for what is neither, and what `check` finds.
    """
    named_item = {item: {}} if isinstance(item, str) else item
    if not isinstance(named_item, dict) or len(named_item) != 1:
        raise UserError("Give one transform: {Name: {argument: value}}.")
    [(name, args)] = named_item.items()
    if name not in PRESETS:
        transforms = [{name: {} if args is None else args}]
    elif isinstance(args, dict | None):
        transforms = spelled_out(name, args or {})
    else:
        raise UserError(f"{name} takes {{argument: value}}, not {args!r}.")
    for transform in transforms:
        if check is not None:
            check(transform)
    return transforms


def change_recipe(recipe: Recipe, change: Mapping[str, Any], context: Any = None) -> Recipe:
    """Return `recipe` with the keys of `change` laid over it.

    Raises:
        Faults: where the two do not go together.
    """
    try:
        return Recipe.model_validate(lay_over(recipe.model_dump(), change), context=context)
    except ValidationError as error:
        raise Faults(describe(error, Recipe)) from error


def lay_over(recipe: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a change over a recipe as data; a part by another name replaces the whole part."""
    kept = dict(recipe)
    for one, other in (("epochs", "steps"), ("steps", "epochs")):
        if change.get(one) is not None:
            kept.pop(other, None)
    for part in ("optimizer", "schedule", "loss"):
        old, new = named(kept.get(part)), named(change.get(part))
        if isinstance(old, dict) and isinstance(new, dict) and "name" in new:
            kept[part] = old if old.get("name") == new["name"] else {}
            change = {**change, part: new}
    return yaml_file.merge(kept, change)
