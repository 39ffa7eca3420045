"""The schema of suites."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
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

from bench.datasets.base import Labels
from bench.datasets.registry import find
from bench.errors import Fault, Faults, UserError
from bench.lookup import unknown
from bench.suite.columns import COLUMNS, IOU, column
from bench.suite.evaluation import Evaluation
from bench.suite.gate import Gate
from bench.suite.model import InitFrom, ModelSpec
from bench.suite.recipe import Recipe
from bench.suite.schema import Cache, Frozen
from bench.suite.validation_errors import describe

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]*$")]
Limit = Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


USUAL_TABLES = (
    "summary",
    "complexity",
    "metrics",
    "per_class",
    "conventions",
    "protocol",
    "profile",
    "reported",
)


class DatasetSpec(Frozen):
    """A dataset with its options: a built-in one, or your own as `package.module:attribute`."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        "", description="name of the dataset, or package.module:attribute; defaults to the key"
    )
    root: str | None = Field(
        None,
        description="folder of its files, relative to the suite or the working directory; --root "
        "NAME=PATH overrides it",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_options(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is None or not isinstance(value, dict):
            return value
        if not isinstance(value.get("name"), str):
            raise Faults([Fault(("name",), f"Must be text, not {value.get('name')!r}.")])
        known = {key: value[key] for key in ("name", "root") if key in value}
        if isinstance(known.get("root"), str):
            known["root"] = _find_root(known["root"], info.context["folder"])
        options = {key: option for key, option in value.items() if key not in known}
        try:
            dataset = find(value["name"])
        except UserError as error:
            raise Faults([Fault(("name",), str(error))]) from error
        try:
            resolved = dataset.Options.model_validate(options, context=info.context)
        except ValidationError as error:
            raise Faults(describe(error, dataset.Options)) from error
        return known | resolved.model_dump(mode="json")

    @property
    def options(self) -> dict[str, Any]:
        """The values for the dataset's `Options`."""
        return dict(self.model_extra or {})

    @property
    def labels(self) -> Labels:
        """Names and colours of the classes; the dataset's files are not needed."""
        dataset = find(self.name)
        return dataset.labels(dataset.Options.model_validate(self.options))


def _find_root(name: str, suite_folder: Path) -> str:
    """Return a dataset's folder: below the suite's folder if it exists there, else as given."""
    given = Path(os.path.expanduser(name))
    beside = suite_folder / given
    return str(beside if beside.is_dir() else given)


class Splits(Frozen):
    """Which splits of a dataset are used for what."""

    train: str = Field("train", description="split to train on")
    select: str = Field("val", description="split to score during training")
    report: tuple[str, ...] = Field(
        ("val",), min_length=1, description="splits to score at the end"
    )


class Select(Frozen):
    """Cases selected by globs on their names; a key that is not given matches all."""

    dataset: str = Field("*", description="glob on keys of datasets")
    model: str = Field("*", description="glob on keys of models")
    recipe: str = Field("*", description="glob on keys of recipes")
    seed: int | None = Field(None, description="only this seed; null: all seeds")


class Override(Frozen):
    """A change of the recipe for the cases that match all globs."""

    dataset: str = Field("*", description="glob on keys of datasets")
    model: str = Field("*", description="glob on keys of models")
    recipe_name: str = Field("*", description="glob on keys of recipes")
    recipe: dict[str, Any] = Field(description="keys of a recipe with their new values")


class CaseRow(Frozen):
    """One row of `cases`, which lists the cases instead of combining all keys."""

    dataset: str = Field(description="key of datasets")
    model: str = Field(description="key of models")
    recipe: str = Field("default", description="key of recipes")
    seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="null: the seeds of the suite"
    )
    init_from: InitFrom | None = Field(
        None, description="overrides the model's init_from; null: the model's"
    )
    label: str | None = Field(None, description="name in tables; null: the model's label")


def _known_figure(name: str) -> str:
    """Check that `name` is a column or iou/NAME."""
    if not name.startswith(IOU) and name not in COLUMNS:
        raise ValueError(unknown("column", name, [*COLUMNS, f"{IOU}CLASS"]))
    return name


FigureName = Annotated[str, AfterValidator(_known_figure)]


class TableColumn(Frozen):
    """A column of a table; a plain name is short for {of: name}."""

    of: FigureName = Field(description="name of a column, or iou/CLASS")
    evaluation: str | None = Field(
        None, description="key of an evaluation; null: the table's evaluation"
    )
    header: str | None = Field(None, description="null: the usual header of the column")
    group: str = Field("", description="heading shared with neighbouring columns")


class Table(Frozen):
    """A table that the suite defines; it also shows the published figures for its cases."""

    columns: tuple[TableColumn, ...] = Field(
        min_length=1, description="columns by name, or with options"
    )
    cases: str = Field("*", description="glob on case names")
    evaluation: str | None = Field(
        None, description="key of an evaluation; null: the first of splits.report"
    )
    order: str = Field(
        "suite", description="order of the rows; suite: that of the suite; a column: best first"
    )
    caption: str = Field("", description="caption; the protocol is added to it")

    @field_validator("columns", mode="before")
    @classmethod
    def _short(cls, columns: Any) -> Any:
        if not isinstance(columns, list | tuple):
            return columns
        return [{"of": item} if isinstance(item, str) else item for item in columns]

    @field_validator("order")
    @classmethod
    def _known_order(cls, order: str) -> str:
        if order != "suite" and order not in COLUMNS:
            raise ValueError(unknown("order", order, ["suite", *COLUMNS]))
        return order


class Reported(Frozen):
    """Published figures, shown beside ours."""

    case: str = Field(
        description="glob on case names, <dataset>__<model>__<recipe>__s<seed>, or the name of a "
        "system that is not a case of the suite"
    )
    split: str | None = Field(None, description="split that the scores are for")
    values: dict[FigureName, float] = Field(
        min_length=1,
        description="figures by column or iou/CLASS, in the units of records: scores in 0..1",
    )
    source: str = Field(description="who published it, and where")
    not_comparable: str | None = Field(
        None, description="why the published figures cannot be compared with ours"
    )

    @model_validator(mode="after")
    def _scores_have_a_split(self) -> "Reported":
        if self.split is None and any(column(name).of == "evaluation" for name in self.values):
            raise ValueError("Give the split that the scores are for.")
        return self

    @field_validator("values")
    @classmethod
    def _are_fractions(cls, values: dict[str, float]) -> dict[str, float]:
        for name, value in values.items():
            if column(name).unit == "%" and not 0 <= value <= 1:
                raise ValueError(
                    f"{name}: scores are in 0..1; give {value / 100:.4g}, not {value:g}."
                )
        return values


class Suite(Frozen):
    """Datasets, models and recipes, and the cases that they make."""

    name: Key = Field(description="name of the results folder, also shown in tables")
    include: str | list[str] | None = Field(None, description="files with defaults for this one")
    description: str = Field("", description="free text for readers of the file")
    datasets: dict[Key, DatasetSpec] = Field(
        min_length=1,
        description="datasets by key; the key is also the dataset's name unless name: is given",
    )
    models: dict[Key, ModelSpec] = Field(min_length=1, description="models by a key of your choice")
    recipe: Recipe | None = Field(None, description="the only recipe, or the defaults of recipes")
    recipes: dict[Key, Recipe] = Field(
        {}, description="recipes by a key of your choice, each a change of recipe"
    )
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="one training per seed")
    cases: tuple[CaseRow, ...] | None = Field(
        None, description="list of cases; null: every combination of dataset, model and recipe"
    )
    exclude: tuple[Select, ...] = Field((), description="cases to leave out")
    overrides: tuple[Override, ...] = Field((), description="changes of the recipe for some cases")
    splits: Splits = Field(Splits(), description="which splits of a dataset are used for what")
    evaluations: dict[Key, Evaluation] = Field(
        {},
        description="evaluations by key, in addition to one of splits.train and one of each split "
        "in splits.report; a key that is the name of such a split replaces its evaluation",
    )
    tables: dict[Key, Table] = Field(
        {}, description="tables by key, in addition to the standard ones"
    )
    reported: tuple[Reported, ...] = Field((), description="published figures, shown beside ours")
    gate: Gate = Field(Gate(), description="when bench compare calls a score worse")
    limit: Limit | None = Field(
        None, description="how many images of each split are used: a number, or a fraction"
    )
    keep: Literal["weights", "all", "none"] = Field(
        "weights", description="what is kept of a finished case's checkpoint"
    )
    engine: Literal["process", "in-process"] = Field(
        "process",
        description="process: one process per case; in-process: all cases in one process, for "
        "small cases",
    )
    cache: Cache = Field(
        "auto", description="where decoded images are kept between epochs; does not change results"
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

    @field_validator("tables")
    @classmethod
    def _own_names(cls, tables: dict[str, Table]) -> dict[str, Table]:
        taken = [key for key in tables if key in USUAL_TABLES]
        if taken:
            raise Faults(
                [Fault((key,), f"{key} is a standard table; use another key.") for key in taken]
            )
        return tables

    @model_validator(mode="after")
    def _classes_of_figures_exist(self) -> "Suite":
        """Check that every iou/NAME is a class of some dataset of the suite."""
        asked = {
            ("tables", key, "columns", i, "of"): one.of
            for key, table in self.tables.items()
            for i, one in enumerate(table.columns)
        } | {
            ("reported", i, "values", name): name
            for i, item in enumerate(self.reported)
            for name in item.values
        }
        named = {place: of.removeprefix(IOU) for place, of in asked.items() if of.startswith(IOU)}
        if not named:
            return self
        known = {name for spec in self.datasets.values() for name in spec.labels.names}
        faults = [
            Fault(place, unknown("class", name, known))
            for place, name in named.items()
            if name not in known
        ]
        if faults:
            raise Faults(faults)
        return self

    @property
    def all_recipes(self) -> dict[str, Recipe]:
        """Every recipe by name; a single `recipe` is named default."""
        if self.recipes or self.recipe is None:
            return self.recipes
        return {"default": self.recipe}

    @property
    def scored(self) -> dict[str, Evaluation]:
        """Every evaluation by name: the reported splits, the training split, and those given."""
        splits = dict.fromkeys((*self.splits.report, self.splits.train))
        return {split: Evaluation(split=split) for split in splits} | self.evaluations
