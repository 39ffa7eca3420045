"""The schema of suites."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PositiveInt,
    StrictFloat,
    StrictInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from bench.errors import Fault, Faults
from bench.lookup import unknown
from bench.suite.columns import IOU
from bench.suite.dataset import DatasetSpec
from bench.suite.evaluation import Evaluation
from bench.suite.gate import Gate
from bench.suite.model import InitFrom, ModelSpec
from bench.suite.recipe import Recipe
from bench.suite.schema import Cache, Frozen
from bench.suite.tables import USUAL_TABLES, Reported, Table

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]*$", max_length=200)]
Limit = Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


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
    scoring_batch: PositiveInt | None = Field(
        None,
        description="images per forward pass in scoring, which changes scores by rounding alone; "
        "null: the micro-batch of training",
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

    @field_validator("limit", mode="before")
    @classmethod
    def _limit_is_a_number(cls, limit: Any) -> Any:
        if isinstance(limit, str):
            raise ValueError(
                f"Give a number of images, such as 32, or a fraction, such as 0.1, not {limit!r}."
            )
        return limit

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
