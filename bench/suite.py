"""The schema of suites, and its faults in our words."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench import catalog, data, yaml_file
from bench.columns import COLUMNS
from bench.errors import Fault, Faults, UserError
from bench.lookup import unknown

Size = tuple[PositiveInt, PositiveInt]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]*$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Limit = Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


class Frozen(BaseModel):
    """Data that is validated once and never changes; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class DatasetSpec(Frozen):
    """A dataset by name, or a user's own as `package.module:attribute`, with its options."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("", description="defaults to the key")
    root: str | None = Field(None, description="folder of its files; --root name=path goes first")

    @model_validator(mode="before")
    @classmethod
    def _resolve_options(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is None or not isinstance(value, dict):
            return value
        if not isinstance(value.get("name"), str):
            raise Faults([Fault(("name",), f"A name is text, not {value.get('name')!r}.")])
        known = {key: value[key] for key in ("name", "root") if key in value}
        options = {key: option for key, option in value.items() if key not in known}
        try:
            dataset = data.find(value["name"])
        except UserError as error:
            raise Faults([Fault(("name",), str(error))]) from error
        try:
            resolved = dataset.Options.model_validate(options)
        except ValidationError as error:
            raise Faults(describe(error, dataset.Options)) from error
        return known | resolved.model_dump(mode="json")

    @property
    def options(self) -> dict[str, Any]:
        """What the dataset's own Options take."""
        return dict(self.model_extra or {})

    @property
    def labels(self) -> data.Labels:
        """Names and colours of the classes; needs no files."""
        dataset = data.find(self.name)
        return dataset.labels(dataset.Options.model_validate(self.options))


class Weights(Frozen):
    """Where a model's weights come from and what they fill."""

    part: Literal["encoder", "model"]
    source: str = Field(description="a name that the library downloads, or a file")
    sha256: str | None = Field(None, description="of the file's content, filled in when loaded")
    file: Path | None = Field(None, exclude=True)  # where it lies; in no id and no record


class InitFrom(Frozen):
    """A case of the same suite whose trained weights start this one."""

    model: str
    dataset: str | None = Field(None, description="defaults to the same")
    recipe: str | None = Field(None, description="defaults to the same")
    seed: int | None = Field(None, description="defaults to the same")
    part: str = Field("all", description="prefix of the tensors to take, such as encoder, or all")


class Normalize(Frozen):
    """Mean and standard deviation of the channels R, G, B, in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class ModelSpec(Frozen):
    """An architecture with its options; keys not named here go to the architecture."""

    model_config = ConfigDict(extra="allow")

    arch: str = Field(description="smp/NAME, custom/NAME or package.module:attribute")
    encoder: str | None = Field(None, description="of smp/…: any of smp's, or tu-NAME for timm's")
    weights: Weights | None = Field(
        None, description="null, a name, a file, or {encoder: …} or {model: …}"
    )
    normalize: Literal["auto", "imagenet", "none"] | Normalize = Field(
        "auto", description="auto: the encoder's own mean and std, else ImageNet's"
    )
    init_from: InitFrom | None = None
    label: str | None = Field(None, description="the name in tables; defaults to the key")

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, arch: str, info: ValidationInfo) -> str:
        if info.context is not None and ":" not in arch and arch not in catalog.architectures():
            raise ValueError(unknown("model", arch, catalog.architectures()))
        return arch

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str | None, info: ValidationInfo) -> str | None:
        if info.context is None:
            return encoder
        plain = encoder.split(".")[0] if encoder and encoder.startswith("tu-") else encoder
        if plain is not None and plain not in catalog.encoders():
            raise ValueError(unknown("encoder", plain, catalog.encoders()))
        return encoder

    @model_validator(mode="before")
    @classmethod
    def _default_encoder(cls, value: Any) -> Any:
        if isinstance(value, dict) and str(value.get("arch", "")).startswith("smp/"):
            return {"encoder": "resnet34"} | value
        return value

    @field_validator("weights", mode="before")
    @classmethod
    def _read_weights(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or info.context is None:
            return value
        if isinstance(value, str):
            value = {"encoder" if info.data.get("encoder") else "model": value}
        if not isinstance(value, dict) or len(value) != 1 or set(value) - {"encoder", "model"}:
            raise ValueError("Give null, a name, a file, {encoder: …} or {model: …}.")
        [(part, source)] = value.items()
        if not isinstance(source, str) or not source:
            raise ValueError(f"Weights are a name or a file, not {source!r}.")
        if not source.endswith(WEIGHT_SUFFIXES):
            return {"part": part, "source": source}
        file = _find_weights(source, info.context["folder"])
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"part": part, "source": source, "sha256": digest, "file": file}

    @property
    def options(self) -> dict[str, Any]:
        """What the architecture's own builder takes."""
        return dict(self.model_extra or {})


def _find_weights(name: str, folder: Path) -> Path:
    given = Path(os.path.expanduser(name))
    places = [folder / given]
    if os.environ.get("BENCH_WEIGHTS"):
        places.append(Path(os.environ["BENCH_WEIGHTS"]) / given)
    for place in places:
        if place.is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    hint = "" if len(places) > 1 else " A folder of weights can be named in $BENCH_WEIGHTS."
    raise ValueError(f"No weight file {name!r}; looked for {looked}.{hint}")


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
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(None, description="one a class")
    label_smoothing: Fraction = 0.0


Transform = dict[str, dict[str, Any]]


class Recipe(Frozen):
    """How a model is trained."""

    epochs: NonNegativeInt | None = Field(None, description="0 scores the model as it is")
    steps: PositiveInt | None = Field(None, description="optimizer steps, instead of epochs")
    batch_size: PositiveInt = Field(8, description="images per optimizer step")
    accumulate: PositiveInt = Field(1, description="micro-batches that a batch is split into")
    size: Size | None = Field(
        None, description="[H, W] that images are resized to before augmentation; null: as stored"
    )
    augment: tuple[Transform, ...] = Field(
        (), description="albumentations' names and arguments, in order"
    )
    optimizer: Annotated[Adam | AdamW | SGD, Field(discriminator="name")] = Adam()
    schedule: Annotated[Constant | Poly | Cosine | Step, Field(discriminator="name")] = Constant()
    warmup: Warmup | None = None
    loss: CrossEntropy = CrossEntropy()
    clip_grad: PositiveFloat | None = Field(None, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the GPU has it, fp32 on the CPU"
    )
    validate_every: PositiveInt = Field(1, description="epochs between scores on splits.select")

    _short = field_validator("optimizer", "schedule", "loss", mode="before")(_named)

    @field_validator("augment", mode="before")
    @classmethod
    def _read_augment(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, list | tuple):
            return value
        items = [{item: {}} if isinstance(item, str) else item for item in value]
        check: Callable[[Any], None] | None = (info.context or {}).get("check_transform")
        faults = []
        for i, item in enumerate(items):
            if not isinstance(item, dict) or len(item) != 1:
                faults.append(Fault((i,), "Give one transform: {Name: {argument: value}}."))
            elif check is not None:
                try:
                    check(item)
                except UserError as error:
                    faults.append(Fault((i,), str(error)))
        if faults:
            raise Faults(faults)
        return [{name: args or {} for name, args in item.items()} for item in items]

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


class Splits(Frozen):
    """Which part of a dataset serves what."""

    train: str = "train"
    select: str = Field("val", description="scored while training")
    report: tuple[str, ...] = Field(("val",), min_length=1, description="scored at the end")


class Evaluation(Frozen):
    """One way of scoring a trained case."""

    split: str
    size: Size | Literal["recipe", "stored"] = Field(
        "recipe", description="[H, W] of the network's input; recipe: the recipe's own size"
    )
    method: Literal["whole"] = "whole"
    score_at: Literal["stored", "input"] = Field(
        "stored", description="resolution of the masks that predictions are compared with"
    )


class Select(Frozen):
    """Cases by glob on each name; what is not given matches all."""

    dataset: str = "*"
    model: str = "*"
    recipe: str = "*"
    seed: int | None = None


class Override(Frozen):
    """A change of the recipe for the cases that match."""

    dataset: str = "*"
    model: str = "*"
    recipe_name: str = "*"
    recipe: dict[str, Any]


class CaseRow(Frozen):
    """One row of a suite that lists its cases instead of multiplying them."""

    dataset: str
    model: str
    recipe: str = "default"
    seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="defaults to the suite's"
    )
    init_from: InitFrom | None = Field(None, description="goes before the model's")
    label: str | None = None


class Table(Frozen):
    """A table of the suite's own."""

    columns: tuple[str, ...] = Field(min_length=1)
    evaluation: str | None = Field(None, description="defaults to the first reported one")
    order: str = Field("suite", description="suite, or a column: best first")
    caption: str = ""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        faults = [
            Fault((i,), unknown("column", name, COLUMNS))
            for i, name in enumerate(columns)
            if name not in COLUMNS
        ]
        if faults:
            raise Faults(faults)
        return columns

    @field_validator("order")
    @classmethod
    def _known_order(cls, order: str) -> str:
        if order != "suite" and order not in COLUMNS:
            raise ValueError(unknown("order", order, ["suite", *COLUMNS]))
        return order


class Reported(Frozen):
    """A figure that somebody published, to stand beside ours."""

    case: str = Field(description="glob on case names, <dataset>__<model>__<recipe>__s<seed>")
    split: str
    metric: str
    value: float = Field(description="in the record's units: scores in 0..1")
    source: str
    not_comparable: str | None = Field(None, description="why the two figures differ in kind")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        if metric not in COLUMNS:
            raise ValueError(unknown("metric", metric, COLUMNS))
        return metric

    @field_validator("value")
    @classmethod
    def _is_a_fraction(cls, value: float, info: ValidationInfo) -> float:
        if COLUMNS.get(info.data.get("metric", ""), COLUMNS["loss"]).unit == "%" and value > 1:
            raise ValueError(f"Scores are given in 0..1: {value / 100:.4g}, not {value:g}.")
        return value


class Suite(Frozen):
    """Datasets, models and recipes, and the cases that they make."""

    name: Key
    include: str | list[str] | None = Field(None, description="files with defaults of this one")
    description: str = ""
    datasets: dict[Key, DatasetSpec] = Field(min_length=1)
    models: dict[Key, ModelSpec] = Field(min_length=1)
    recipe: Recipe | None = Field(None, description="the one recipe, or what recipes start from")
    recipes: dict[Key, Recipe] = Field({}, description="named changes of recipe")
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    cases: tuple[CaseRow, ...] | None = Field(None, description="rows; null: the product of all")
    exclude: tuple[Select, ...] = ()
    overrides: tuple[Override, ...] = ()
    splits: Splits = Splits()
    evaluations: dict[Key, Evaluation] = Field(
        {}, description="defaults to the training split and each of splits.report"
    )
    tables: dict[Key, Table] = {}
    reported: tuple[Reported, ...] = ()
    limit: Limit | None = Field(
        None, description="images of each split that are used: a number or a fraction"
    )
    keep: Literal["weights", "all", "none"] = Field(
        "weights", description="what stays of a finished case's checkpoint"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_datasets(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("datasets"), dict):
            specs = {
                key: {"name": key} | (spec or {}) if isinstance(spec, dict | None) else spec
                for key, spec in value["datasets"].items()
            }
            return value | {"datasets": specs}
        return value

    @property
    def all_recipes(self) -> dict[str, Recipe]:
        """Every recipe by name; the only one is called default."""
        if self.recipes or self.recipe is None:
            return self.recipes
        return {"default": self.recipe}

    @property
    def scored(self) -> dict[str, Evaluation]:
        """Every evaluation by name: those given, else the reported splits and train."""
        if self.evaluations:
            return self.evaluations
        splits = dict.fromkeys((*self.splits.report, self.splits.train))
        return {split: Evaluation(split=split) for split in splits}


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
        old, new = _named(kept.get(part)), _named(change.get(part))
        if isinstance(old, dict) and isinstance(new, dict) and "name" in new:
            kept[part] = old if old.get("name") == new["name"] else {}
            change = {**change, part: new}
    return yaml_file.merge(kept, change)


def describe(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Turn pydantic's errors into faults in our words, one a place."""
    schema = model.model_json_schema()
    faults: dict[tuple[str | int, ...], list[str]] = {}
    for item in error.errors():
        loc, given = _place(item["loc"]), item["input"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Faults):
            for fault in cause.faults:
                faults.setdefault((*loc, *fault.path), []).append(fault.message)
            continue
        match item["type"]:
            case "extra_forbidden":
                message = unknown("key", str(loc[-1]), _allowed(schema, item["loc"][:-1]))
            case "missing":
                message = f"The key {str(loc[-1])!r} is required."
            case "union_tag_invalid":
                known = re.findall(r"'(\w+)'", item["ctx"]["expected_tags"])
                message = unknown(str(loc[-1]), str(item["ctx"]["tag"]), known)
                loc = (*loc, "name")
            case "union_tag_not_found":
                message = "Give its name: {name: …}."
            case "value_error":
                message = str(cause)
            case "literal_error" if isinstance(given, str):
                known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
                message = unknown(str(loc[-1]), given, known)
            case _:
                message = f"{item['msg']}, not {given!r}."
        faults.setdefault(loc, []).append(message)
    return [Fault(loc, " Or: ".join(dict.fromkeys(messages))) for loc, messages in faults.items()]


def _place(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Drop the branch of a union that pydantic appends to a place."""
    branch = re.compile(
        r"^(constrained-)?(int|float|str)$|^(literal|tuple|function|nullable)\[|^Normalize$"
    )
    while loc and isinstance(loc[-1], str) and branch.match(loc[-1]):
        loc = loc[:-1]
    return loc


def _allowed(schema: Mapping[str, Any], loc: tuple[str | int, ...]) -> list[str]:
    """List the keys that a JSON Schema allows at a place."""
    node = _follow(schema, schema)
    for part in loc:
        rest = node.get("additionalProperties")
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            node = node.get("items", {})
        else:
            child = node.get("properties", {}).get(part, rest)
            node = child if isinstance(child, dict) else {}
        node = _follow(schema, node)
    return list(node.get("properties", {}))


def _follow(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a $ref, or the first choice that is not null, stands for."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        else:
            node = next((n for n in node["anyOf"] if n.get("type") != "null"), {})
    return node


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of suite files, with the short forms that are accepted."""
    schema = Suite.model_json_schema()
    parts = schema["$defs"]
    recipe = parts["Recipe"]["properties"]
    for key, specs in (
        ("optimizer", (Adam, AdamW, SGD)),
        ("schedule", (Constant, Poly, Cosine, Step)),
        ("loss", (CrossEntropy,)),
    ):
        names = [str(spec.model_fields["name"].default) for spec in specs]
        recipe[key] = {"anyOf": [{"enum": names}, recipe[key]]}
    transform = recipe["augment"]["items"]
    transform["additionalProperties"] = {"type": ["object", "null"]}
    recipe["augment"]["items"] = {"anyOf": [{"type": "string"}, transform]}
    part = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}
    part["propertyNames"] = {"enum": ["encoder", "model"]}
    parts["ModelSpec"]["properties"]["weights"] = {"anyOf": [{"type": ["string", "null"]}, part]}
    datasets = schema["properties"]["datasets"]
    datasets["patternProperties"] = {
        pattern: {"anyOf": [{"type": "null"}, spec]}
        for pattern, spec in datasets["patternProperties"].items()
    }
    return schema
