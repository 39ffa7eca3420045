"""The schema of suites."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench import data
from bench.columns import COLUMNS
from bench.errors import Fault, Faults, UserError
from bench.evaluation import Evaluation
from bench.lookup import unknown
from bench.model_spec import InitFrom, ModelSpec
from bench.recipe import Recipe
from bench.schema import Cache, Frozen, describe

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]*$")]
Limit = Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class DatasetSpec(Frozen):
    """A dataset by name, or a user's own as `package.module:attribute`, with its options."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("", description="defaults to the key")
    root: str | None = Field(
        None,
        description="folder of its files, relative to the suite or the working directory; --root "
        "name=path goes first",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_options(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is None or not isinstance(value, dict):
            return value
        if not isinstance(value.get("name"), str):
            raise Faults([Fault(("name",), f"A name is text, not {value.get('name')!r}.")])
        known = {key: value[key] for key in ("name", "root") if key in value}
        if isinstance(known.get("root"), str):
            known["root"] = _find_root(known["root"], info.context["folder"])
        options = {key: option for key, option in value.items() if key not in known}
        try:
            dataset = data.find(value["name"])
        except UserError as error:
            raise Faults([Fault(("name",), str(error))]) from error
        try:
            resolved = dataset.Options.model_validate(options, context=info.context)
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


def _find_root(name: str, suite_folder: Path) -> str:
    """Return a dataset's folder: below the suite's where it is there, else as it is given."""
    given = Path(os.path.expanduser(name))
    beside = suite_folder / given
    return str(beside if beside.is_dir() else given)


class Splits(Frozen):
    """Which part of a dataset serves what."""

    train: str = "train"
    select: str = Field("val", description="scored while training")
    report: tuple[str, ...] = Field(("val",), min_length=1, description="scored at the end")


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
    split: str | None = Field(None, description="that a score is of")
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

    @model_validator(mode="after")
    def _scores_have_a_split(self) -> "Reported":
        if COLUMNS[self.metric].of == "evaluation" and self.split is None:
            raise ValueError("Scores are of a split; give it.")
        return self

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
        {}, description="beside the training split and each of splits.report, or in their place"
    )
    tables: dict[Key, Table] = Field({}, description="of the suite's own, beside the usual")
    reported: tuple[Reported, ...] = ()
    limit: Limit | None = Field(
        None, description="images of each split that are used: a number or a fraction"
    )
    keep: Literal["weights", "all", "none"] = Field(
        "weights", description="what stays of a finished case's checkpoint"
    )
    engine: Literal["process", "in-process"] = Field(
        "process",
        description="process: a process for each case; in-process: all in one, for small cases",
    )
    cache: Cache = Field(
        "auto", description="where decoded images are kept between epochs; changes no number"
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
        """Every evaluation by name: the reported splits and train, and those given."""
        splits = dict.fromkeys((*self.splits.report, self.splits.train))
        return {split: Evaluation(split=split) for split in splits} | self.evaluations
