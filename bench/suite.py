"""The suite file: its schema, and every fault of schema and names at once, each with its line."""

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


class Frozen(BaseModel):
    """Data that is validated once and never changes; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class DatasetSpec(Frozen):
    """A dataset by name, or a user's own as `package.module:attribute`, with its options."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="defaults to the key")
    root: str | None = Field(None, description="folder of its files; --root name=path goes first")

    @model_validator(mode="before")
    @classmethod
    def _resolve_options(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return value
        known = {key: value[key] for key in ("name", "root") if key in value}
        options = {key: option for key, option in value.items() if key not in known}
        try:
            dataset = data.find(value["name"])
        except UserError as error:
            raise Faults([Fault(("name",), str(error))]) from error
        try:
            resolved = dataset.Options.model_validate(options)
        except ValidationError as error:
            raise Faults(_describe(error, dataset.Options)) from error
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
    sha256: str | None = Field(None, description="content of the file, filled in when loaded")


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
    def _known_arch(cls, arch: str) -> str:
        if ":" not in arch and arch not in catalog.architectures():
            raise ValueError(unknown("model", arch, catalog.architectures()))
        return arch

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str | None) -> str | None:
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
        if value is None or (isinstance(value, dict) and "source" in value):
            return value
        if isinstance(value, str):
            value = {"encoder" if info.data.get("encoder") else "model": value}
        if not isinstance(value, dict) or len(value) != 1 or set(value) - {"encoder", "model"}:
            raise ValueError("Give null, a name, a file, {encoder: …} or {model: …}.")
        [(part, source)] = value.items()
        if not isinstance(source, str):
            raise ValueError(f"Weights are a name or a file, not {source!r}.")
        if not source.endswith(WEIGHT_SUFFIXES):
            return {"part": part, "source": source}
        file = _find_weights(source, (info.context or {}).get("folder", Path()))
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"part": part, "source": str(file), "sha256": digest}

    @property
    def options(self) -> dict[str, Any]:
        """What the architecture's own builder takes."""
        return dict(self.model_extra or {})


def _find_weights(name: str, folder: Path) -> Path:
    given = Path(os.path.expanduser(name))
    places = [folder / given]
    if "BENCH_WEIGHTS" in os.environ:
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
    seeds: tuple[int, ...] | None = Field(None, description="defaults to the suite's")
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


class Suite(Frozen):
    """Datasets, models and recipes, and the cases that they make."""

    name: Key
    include: str | list[str] | None = Field(None, description="files with defaults of this one")
    description: str = ""
    datasets: dict[Key, DatasetSpec] = Field(min_length=1)
    models: dict[Key, ModelSpec] = Field(min_length=1)
    recipe: Recipe | None = Field(None, description="the one recipe, or what recipes start from")
    recipes: dict[Key, Recipe] = Field({}, description="named changes of recipe")
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    cases: tuple[CaseRow, ...] | None = Field(None, description="rows; null: the product of all")
    exclude: tuple[Select, ...] = ()
    overrides: tuple[Override, ...] = ()
    splits: Splits = Splits()
    evaluations: dict[Key, Evaluation] = Field(
        {}, description="defaults to the training split and each of splits.report"
    )
    tables: dict[Key, Table] = {}
    reported: tuple[Reported, ...] = ()
    limit: PositiveInt | Annotated[float, Field(gt=0, lt=1)] | None = Field(
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

    @model_validator(mode="after")
    def _check_names(self) -> "Suite":
        faults = [*self._row_faults(), *self._selector_faults(), *self._split_faults()]
        if self.recipe is None and not self.recipes:
            faults.append(Fault((), "Give a recipe: or named recipes:."))
        for name, table in self.tables.items():
            if table.evaluation not in (None, *self.scored):
                message = unknown("evaluation", str(table.evaluation), self.scored)
                faults.append(Fault(("tables", name, "evaluation"), message))
        if len(set(self.seeds)) < len(self.seeds):
            faults.append(Fault(("seeds",), "A seed is given twice."))
        if faults:
            raise Faults(faults)
        return self

    def _row_faults(self) -> Iterable[Fault]:
        for i, row in enumerate(self.cases or ()):
            for kind, names in self._names().items():
                if getattr(row, kind) not in names:
                    message = unknown(kind, getattr(row, kind), names)
                    yield Fault(("cases", i, kind), message)

    def _selector_faults(self) -> Iterable[Fault]:
        for group in ("exclude", "overrides"):
            for i, select in enumerate(getattr(self, group)):
                for kind, names in self._names().items():
                    key = "recipe_name" if group == "overrides" and kind == "recipe" else kind
                    pattern = getattr(select, key)
                    if not fnmatch.filter(names, pattern):
                        message = f"{pattern!r} matches nothing. {unknown(kind, pattern, names)}"
                        yield Fault((group, i, key), message)

    def _split_faults(self) -> Iterable[Fault]:
        used: dict[tuple[str | int, ...], str] = {
            ("splits", "train"): self.splits.train,
            ("splits", "select"): self.splits.select,
            **{("splits", "report", i): split for i, split in enumerate(self.splits.report)},
            **{("evaluations", key, "split"): e.split for key, e in self.evaluations.items()},
        }
        for key, spec in self.datasets.items():
            known = data.find(spec.name).splits
            for path, split in used.items():
                if known and split not in known:
                    yield Fault(path, f"Dataset {key!r}: {unknown('split', split, known)}")

    def _names(self) -> dict[str, list[str]]:
        return {
            "dataset": list(self.datasets),
            "model": list(self.models),
            "recipe": list(self.all_recipes),
        }

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
    """Return `recipe` with the keys of `change` laid over it."""
    return Recipe.model_validate(_over(recipe.model_dump(), change), context=context)


def _over(recipe: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
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


@dataclass(frozen=True)
class SuiteFile:
    """A valid suite and the file and line that each part of it came from."""

    suite: Suite
    path: Path
    document: yaml_file.Document

    def error(self, faults: Iterable[Fault]) -> UserError:
        """Word faults found later, such as a model that does not build, with their lines."""
        return _located(self.path, self.document, faults)


def load(
    path: Path,
    settings: Iterable[str] = (),
    check_transform: Callable[[Any], None] | None = None,
) -> SuiteFile:
    """Read and validate a suite.

    Args:
        settings: "key.key=value" texts laid over the file; those under `recipe.` go over every
            recipe and override.
        check_transform: raises UserError for a bad augmentation; without it none is checked.

    Raises:
        UserError: listing every fault with its file and line.
    """
    document = yaml_file.read(path)
    if not isinstance(document.data, dict):
        raise UserError(f"{path}: a suite is keys and values, beginning with name:.")
    faults = list(document.faults)
    faults += _apply(settings, document)
    _spread_recipe(document)
    context = {"folder": path.parent, "check_transform": check_transform}
    try:
        suite = Suite.model_validate(document.data, context=context)
    except ValidationError as error:
        raise _located(path, document, faults + _describe(error, Suite)) from error
    faults += _override_faults(suite, context)
    if faults:
        raise _located(path, document, faults)
    return SuiteFile(suite, path, document)


def _apply(settings: Iterable[str], document: yaml_file.Document) -> list[Fault]:
    faults: list[Fault] = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        keys = tuple(name.split("."))
        if not equals or not all(keys):
            raise UserError(f"--set takes key=value, such as recipe.epochs=2, not {setting!r}.")
        change = yaml_file.parse_value(text)
        for key in reversed(keys):
            change = {key: change}
        for length in range(1, len(keys) + 1):
            document.places[keys[:length]] = f"--set {setting}"
        if keys[0] == "recipe" and isinstance(document.data.get("overrides", []), list):
            row = len(document.data.get("overrides", []))
            document.places[("overrides", row)] = f"--set {setting}"
            overrides = [*document.data.get("overrides", []), change]
            document.data = {**document.data, "overrides": overrides}
        else:
            document.data = yaml_file.merge(document.data, change)
    return faults


def _spread_recipe(document: yaml_file.Document) -> None:
    """Lay each of `recipes` over `recipe`, which is then only their start."""
    base, named = document.data.get("recipe"), document.data.get("recipes")
    if not (isinstance(base, dict) and isinstance(named, dict) and named):
        return
    recipes = {}
    for name, change in named.items():
        recipes[name] = _over(base, change or {}) if isinstance(change, dict | None) else change
        for keys, place in list(document.places.items()):
            if keys[:1] == ("recipe",) and len(keys) > 1:
                document.places.setdefault(("recipes", name, *keys[1:]), place)
    document.data = {k: v for k, v in document.data.items() if k != "recipe"}
    document.data["recipes"] = recipes


def _override_faults(suite: Suite, context: Any) -> list[Fault]:
    faults = {}
    for i, override in enumerate(suite.overrides):
        for name, recipe in suite.all_recipes.items():
            if not fnmatch.fnmatchcase(name, override.recipe_name):
                continue
            try:
                change_recipe(recipe, override.recipe, context)
            except ValidationError as error:
                for fault in _describe(error, Recipe):
                    path = ("overrides", i, "recipe", *fault.path)
                    faults[path, fault.message] = Fault(path, fault.message)
    return list(faults.values())


def _located(path: Path, document: yaml_file.Document, faults: Iterable[Fault]) -> UserError:
    lines = []
    for fault in faults:
        place = document.place(fault.path) or str(path)
        keys = ".".join(str(key) for key in document.keys(fault.path))
        lines.append(f"{place}: {keys + ': ' if keys else ''}{fault.message}")

    def position(line: str) -> tuple[str, int]:
        match = re.match(r"(.*?):(\d+): ", line)
        return (match[1], int(match[2])) if match else (line, 0)

    return UserError("\n".join(sorted(dict.fromkeys(lines), key=position)))


def _describe(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Turn pydantic's errors into faults in our words."""
    schema = model.model_json_schema()
    faults = []
    for item in error.errors():
        loc, given = item["loc"], item["input"]
        cause = item.get("ctx", {}).get("error")
        match item["type"]:
            case _ if isinstance(cause, Faults):
                faults += [Fault((*loc, *fault.path), fault.message) for fault in cause.faults]
            case "extra_forbidden":
                message = unknown("key", str(loc[-1]), _allowed(schema, loc[:-1]))
                faults.append(Fault(loc, message))
            case "missing":
                faults.append(Fault(loc, f"The key {str(loc[-1])!r} is required."))
            case "union_tag_invalid":
                known = re.findall(r"'(\w+)'", item["ctx"]["expected_tags"])
                message = unknown(str(loc[-1]), str(item["ctx"]["tag"]), known)
                faults.append(Fault((*loc, "name"), message))
            case "value_error":
                faults.append(Fault(loc, str(cause)))
            case "literal_error" if isinstance(given, str):
                known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
                faults.append(Fault(loc, unknown(str(loc[-1]), given, known)))
            case _:
                faults.append(Fault(loc, f"{item['msg']}, not {given!r}."))
    return faults


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
