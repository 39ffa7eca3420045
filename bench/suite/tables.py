"""The schema of what a suite says about tables: its own, and published figures."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from bench.lookup import unknown
from bench.suite.columns import COLUMNS, IOU, column
from bench.suite.schema import Frozen

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
