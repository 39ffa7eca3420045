"""How a model is trained: the schema of recipes, and how a recipe is changed."""

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
from bench.suite.augment_presets import PRESETS, Transform, one_transform, spelled_out
from bench.suite.columns import SCORES
from bench.suite.loss import CrossEntropy, Dice, Focal, Sum
from bench.suite.optimizer import SGD, Adam, AdamW, Constant, Cosine, Poly, Step, Warmup
from bench.suite.schema import SIZE_OR_SIDE, Frozen, Side, Size
from bench.suite.validation_errors import describe
from bench.text import plural


def named(value: object) -> object:
    """Read a plain name as a part with default options, and a list as the sum of its items."""
    if isinstance(value, list | tuple):
        return {"name": "sum", "terms": [named(item) for item in value]}
    return {"name": value} if isinstance(value, str) else value


class Recipe(Frozen):
    """How a model is trained."""

    epochs: NonNegativeInt | None = Field(
        None, description="number of epochs; 0: score the model without training"
    )
    steps: PositiveInt | None = Field(
        None, description="number of optimizer steps, instead of epochs"
    )
    batch_size: PositiveInt = Field(8, description="images per optimizer step")
    accumulate: PositiveInt = Field(
        1, description="number of micro-batches that a batch is split into"
    )
    size: Annotated[Size | Side | None, SIZE_OR_SIDE] = Field(
        None,
        description="size that images are resized to before augmentation: [H, W], {longest: px} or "
        "{shortest: px}; null: no resizing",
    )
    augment: tuple[Transform, ...] = Field(
        (),
        description="transforms of albumentations in order, by name, with arguments; also the "
        "presets voc_standard, flip, affine and resized_crop",
    )
    optimizer: Annotated[Adam | AdamW | SGD, Field(discriminator="name")] = Field(
        Adam(), description="a name, or a name with options"
    )
    decay: Literal["all", "weights"] = Field(
        "all",
        description="what weight_decay applies to; weights: not to biases and normalisation layers",
    )
    encoder_lr: NonNegativeFloat = Field(
        1.0,
        description="factor of the learning rate for the encoder",
    )
    freeze_encoder: bool = Field(
        False,
        description="do not train the encoder and do not update its BatchNorm statistics",
    )
    schedule: Annotated[Constant | Poly | Cosine | Step, Field(discriminator="name")] = Field(
        Constant(), description="learning-rate schedule: a name, or a name with options"
    )
    warmup: Warmup | None = Field(None, description="learning-rate warmup; null: none")
    loss: Annotated[CrossEntropy | Focal | Dice | Sum, Field(discriminator="name")] = Field(
        CrossEntropy(), description="a name, a name with options, or a list of losses to add up"
    )
    aux_weight: NonNegativeFloat = Field(
        0.4,
        description="weight of the loss of each auxiliary head; the main loss has weight 1",
    )
    memory: Literal["keep", "checkpoint"] = Field(
        "keep",
        description="checkpoint: recompute activations in the backward pass, to save memory",
    )
    clip_grad: PositiveFloat | None = Field(
        None, description="maximum norm of the gradient; null: no clipping"
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 if the GPU or CPU computes in it, otherwise fp32"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto",
        description="order of a tensor's axes in memory; auto: channels_last if the network "
        "takes it",
    )
    compile: Literal[False, "default", "reduce-overhead", "max-autotune"] = Field(
        False,
        description="mode of torch.compile; reduce-overhead replays each step as a CUDA graph",
    )
    deterministic: bool = Field(
        False,
        description="use only algorithms whose result is the same in every run; an operation "
        "that has none is an error",
    )
    on_oom: Literal["fail", "accumulate"] = Field(
        "fail",
        description="what to do if memory runs out; accumulate: restart with micro-batches of half "
        "the size",
    )
    validate_every: PositiveInt = Field(
        1, description="number of epochs between two validations on splits.select"
    )
    checkpoint: Literal["last", "best"] = Field(
        "last",
        description="epoch whose model is scored; best: the one with the best select_by on "
        "splits.select",
    )
    select_by: str = Field("miou", description="score that checkpoint: best and patience use")
    patience: PositiveInt | None = Field(
        None,
        description="stop after this many epochs without a better score on splits.select",
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
            raise ValueError("Give either epochs or steps.")
        if self.freeze_encoder and self.encoder_lr != 1:
            raise ValueError(
                "freeze_encoder: a frozen encoder has no encoder_lr; remove one of the two."
            )
        if self.compile and self.memory == "checkpoint":
            raise ValueError(
                "compile: a compiled network plans its memory itself; leave memory: checkpoint out."
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be split into {self.accumulate} equal "
                "micro-batches; accumulate must divide it."
            )
        return self

    @property
    def micro_batch(self) -> int:
        """Number of images in one forward pass."""
        return self.batch_size // self.accumulate

    @property
    def length(self) -> str:
        """How long training takes: "2 epochs" or "300 steps"."""
        return (
            plural(self.epochs or 0, "epoch") if self.steps is None else plural(self.steps, "step")
        )

    @property
    def selects(self) -> bool:
        """Whether scores on splits.select decide which model is the result."""
        return self.checkpoint == "best" or self.patience is not None


def _transforms(item: Any, check: Callable[[Any], None] | None) -> list[Transform]:
    """Read one entry of augment: a name, or {name: arguments}; a preset becomes several.

    Raises:
        Faults, UserError: if `item` is neither, or `check` rejects a transform.
    """
    [(name, args)] = one_transform(item).items()
    if name not in PRESETS:
        transforms = [{name: args}]
    elif isinstance(args, dict):
        transforms = spelled_out(name, args)
    else:
        raise UserError(f"{name} takes {{argument: value}}, not {args!r}.")
    for transform in transforms:
        if check is not None:
            check(transform)
    return transforms


def change_recipe(recipe: Recipe, change: Mapping[str, Any], context: Any = None) -> Recipe:
    """Return `recipe` with the keys of `change` replaced.

    Raises:
        Faults: if the result is not a valid recipe.
    """
    try:
        return Recipe.model_validate(lay_over(recipe.model_dump(), change), context=context)
    except ValidationError as error:
        raise Faults(describe(error, Recipe)) from error


def lay_over(recipe: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Apply a change to a recipe given as data; a part with another name is replaced whole."""
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
