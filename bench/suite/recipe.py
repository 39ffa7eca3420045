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

from bench.errors import Fault, Faults, UserError
from bench.lookup import unknown
from bench.suite import yaml_file
from bench.suite.augment_presets import PRESETS, Transform, spelled_out
from bench.suite.columns import SCORES
from bench.suite.loss import CrossEntropy, Dice, Focal, Sum
from bench.suite.optimizer import SGD, Adam, AdamW, Constant, Cosine, Poly, Step, Warmup
from bench.suite.schema import Frozen, Side, Size
from bench.suite.validation_errors import describe


def named(value: object) -> object:
    """Read a plain name as a part with its defaults, and a list as the sum of what it lists."""
    if isinstance(value, list | tuple):
        return {"name": "sum", "terms": [named(item) for item in value]}
    return {"name": value} if isinstance(value, str) else value


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
    optimizer: Annotated[Adam | AdamW | SGD, Field(discriminator="name")] = Field(
        Adam(), description="a name, or a name with options"
    )
    decay: Literal["all", "weights"] = Field(
        "all",
        description="what weight_decay is of; weights: not of biases and norms",
    )
    encoder_lr: NonNegativeFloat = Field(
        1.0,
        description="times the learning rate, for the encoder",
    )
    freeze_encoder: bool = Field(
        False,
        description="the encoder stays as it is, its BatchNorm statistics too",
    )
    schedule: Annotated[Constant | Poly | Cosine | Step, Field(discriminator="name")] = Field(
        Constant(), description="of the learning rate: a name, or a name with options"
    )
    warmup: Warmup | None = Field(None, description="of the learning rate")
    loss: Annotated[CrossEntropy | Focal | Dice | Sum, Field(discriminator="name")] = Field(
        CrossEntropy(), description="a name, a name with options, or a list that is added up"
    )
    aux_weight: NonNegativeFloat = Field(
        0.4,
        description="of the losses of a network's auxiliary heads, beside 1 of its logits'",
    )
    memory: Literal["keep", "checkpoint"] = Field(
        "keep",
        description="checkpoint: activations are computed again in the backward pass",
    )
    clip_grad: PositiveFloat | None = Field(None, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the GPU has it, fp32 on the CPU"
    )
    deterministic: bool = Field(
        False,
        description="only algorithms that give the same on every run; refused where there is none",
    )
    on_oom: Literal["fail", "accumulate"] = Field(
        "fail",
        description="out of memory; accumulate: begin again with micro-batches of half the size",
    )
    validate_every: PositiveInt = Field(1, description="epochs between scores on splits.select")
    checkpoint: Literal["last", "best"] = Field(
        "last",
        description="the epoch whose model is scored; best: by select_by on splits.select",
    )
    select_by: str = Field("miou", description="the score of best and patience")
    patience: PositiveInt | None = Field(
        None,
        description="epochs without a better score on splits.select that end the training",
    )

    _short = field_validator("optimizer", "schedule", "loss", mode="before")(named)

    @field_validator("select_by")
    @classmethod
    def _known_score(cls, name: str) -> str:
        if name not in SCORES:
            raise ValueError(unknown("score", name, SCORES))
        return name

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
        if self.freeze_encoder and self.encoder_lr != 1:
            raise ValueError("freeze_encoder: a frozen encoder has no encoder_lr; leave one out.")
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

    @property
    def selects(self) -> bool:
        """Whether scores on splits.select decide which model is the result."""
        return self.checkpoint == "best" or self.patience is not None


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
        if isinstance(old, dict) and isinstance(new, dict):
            kept[part] = old if new.get("name", old.get("name")) == old.get("name") else {}
            change = {**change, part: new}
    return yaml_file.merge(kept, change)
