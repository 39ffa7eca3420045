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
        """What the dataset's own Options take."""
        return dict(self.model_extra or {})

    @property
    def labels(self) -> Labels:
        """Names and colours of the classes; needs no files."""
        dataset = find(self.name)
        return dataset.labels(dataset.Options.model_validate(self.options))


def _find_root(name: str, suite_folder: Path) -> str:
    """Return a dataset's folder: below the suite's where it is there, else as it is given."""
    given = Path(os.path.expanduser(name))
    beside = suite_folder / given
    return str(beside if beside.is_dir() else given)


class Splits(Frozen):
    """Which part of a dataset serves what."""

    train: str = Field("train", description="trained on")
    select: str = Field("val", description="scored while training")
    report: tuple[str, ...] = Field(("val",), min_length=1, description="scored at the end")


class Select(Frozen):
    """Cases by glob on each name; what is not given matches all."""

    dataset: str = Field("*", description="glob")
    model: str = Field("*", description="glob")
    recipe: str = Field("*", description="glob")
    seed: int | None = Field(None, description="this one alone; null: all")


class Override(Frozen):
    """A change of the recipe for the cases that match."""

    dataset: str = Field("*", description="glob")
    model: str = Field("*", description="glob")
    recipe_name: str = Field("*", description="glob")
    recipe: dict[str, Any] = Field(description="keys of a recipe, laid over it")


class CaseRow(Frozen):
    """One row of a suite that lists its cases instead of multiplying them."""

    dataset: str = Field(description="key of datasets")
    model: str = Field(description="key of models")
    recipe: str = Field("default", description="key of recipes")
    seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="defaults to the suite's"
    )
    init_from: InitFrom | None = Field(None, description="goes before the model's")
    label: str | None = Field(None, description="the name in tables; goes before the model's")


def _known_figure(name: str) -> str:
    """Refuse what is neither a column nor iou/NAME."""
    if not name.startswith(IOU) and name not in COLUMNS:
        raise ValueError(unknown("column", name, [*COLUMNS, f"{IOU}CLASS"]))
    return name


FigureName = Annotated[str, AfterValidator(_known_figure)]


class TableColumn(Frozen):
    """A column of a table of the suite's own; a plain name is short for {of: name}."""

    of: FigureName = Field(description="a column's name, or iou/CLASS")
    evaluation: str | None = Field(None, description="defaults to the table's")
    header: str | None = Field(None, description="defaults to the column's own")
    group: str = Field("", description="over the headers of neighbours")


class Table(Frozen):
    """A table of the suite's own; published figures stand beside ours."""

    columns: tuple[TableColumn, ...] = Field(
        min_length=1, description="names of columns, or with options"
    )
    cases: str = Field("*", description="glob on case names")
    evaluation: str | None = Field(None, description="defaults to the first reported one")
    order: str = Field("suite", description="suite, or a column: best first")
    caption: str = Field("", description="of the table; its protocol is added")

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
    """Figures that somebody published, to stand beside ours."""

    case: str = Field(
        description="glob on case names, <dataset>__<model>__<recipe>__s<seed>, or the name of a "
        "system that is no case here"
    )
    split: str | None = Field(None, description="that scores are of")
    values: dict[FigureName, float] = Field(
        min_length=1, description="by column, or iou/CLASS, in the record's units: scores in 0..1"
    )
    source: str = Field(description="who published it, and where")
    not_comparable: str | None = Field(None, description="why theirs and ours differ in kind")

    @model_validator(mode="after")
    def _scores_have_a_split(self) -> "Reported":
        if self.split is None and any(column(name).of == "evaluation" for name in self.values):
            raise ValueError("Scores are of a split; give it.")
        return self

    @field_validator("values")
    @classmethod
    def _are_fractions(cls, values: dict[str, float]) -> dict[str, float]:
        for name, value in values.items():
            if column(name).unit == "%" and not 0 <= value <= 1:
                raise ValueError(
                    f"{name}: scores are given in 0..1: {value / 100:.4g}, not {value:g}."
                )
        return values


class Suite(Frozen):
    """Datasets, models and recipes, and the cases that they make."""

    name: Key = Field(description="of the folder of results, and of tables")
    include: str | list[str] | None = Field(None, description="files with defaults of this one")
    description: str = Field("", description="for readers of the file")
    datasets: dict[Key, DatasetSpec] = Field(
        min_length=1, description="by a key, which is the dataset's name unless name: says another"
    )
    models: dict[Key, ModelSpec] = Field(min_length=1, description="by a key of your choice")
    recipe: Recipe | None = Field(None, description="the one recipe, or what recipes start from")
    recipes: dict[Key, Recipe] = Field({}, description="named changes of recipe")
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="each is a training")
    cases: tuple[CaseRow, ...] | None = Field(None, description="rows; null: the product of all")
    exclude: tuple[Select, ...] = Field((), description="cases to leave out of the product")
    overrides: tuple[Override, ...] = Field((), description="changes of the recipe of some cases")
    splits: Splits = Field(Splits(), description="which part of a dataset serves what")
    evaluations: dict[Key, Evaluation] = Field(
        {}, description="beside the training split and each of splits.report, or in their place"
    )
    tables: dict[Key, Table] = Field({}, description="of the suite's own, beside the usual")
    reported: tuple[Reported, ...] = Field((), description="published figures beside ours")
    gate: Gate = Field(Gate(), description="when bench compare calls a score worse")
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

    @field_validator("tables")
    @classmethod
    def _own_names(cls, tables: dict[str, Table]) -> dict[str, Table]:
        taken = [key for key in tables if key in USUAL_TABLES]
        if taken:
            raise Faults([Fault((key,), f"{key} is one of the usual tables.") for key in taken])
        return tables

    @model_validator(mode="after")
    def _classes_of_figures_exist(self) -> "Suite":
        """Refuse iou/NAME of a class that no dataset of the suite has."""
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
        """Every recipe by name; the only one is called default."""
        if self.recipes or self.recipe is None:
            return self.recipes
        return {"default": self.recipe}

    @property
    def scored(self) -> dict[str, Evaluation]:
        """Every evaluation by name: the reported splits and train, and those given."""
        splits = dict.fromkeys((*self.splits.report, self.splits.train))
        return {split: Evaluation(split=split) for split in splits} | self.evaluations
