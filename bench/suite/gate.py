"""A suite's rules for `bench compare`: minimum scores, and cases that must match exactly."""

from typing import Annotated

from pydantic import AfterValidator, Field

from bench.lookup import unknown
from bench.suite.columns import SCORES
from bench.suite.schema import Frozen

Share = Annotated[float, Field(ge=0, le=1)]
SHARES = [name for name, column in SCORES.items() if column.unit == "%"]


def _known_score(name: str) -> str:
    if name not in SHARES:
        raise ValueError(unknown("score", name, SHARES))
    return name


class Minimum(Frozen):
    """Minimum scores of a model, as the mean over its seeds."""

    case: str = Field(description="glob on case names, <dataset>__<model>__<recipe>__s<seed>")
    evaluation: str | None = Field(
        None, description="key of an evaluation; null: the first of splits.report"
    )
    values: dict[Annotated[str, AfterValidator(_known_score)], Share] = Field(
        min_length=1, description=f"minimum in 0..1 of each score: {', '.join(SHARES)}"
    )


class Gate(Frozen):
    """When `bench compare` calls a score worse."""

    floors: tuple[Minimum, ...] = Field((), description="minimum scores")
    exact: tuple[str, ...] = Field(
        (),
        description="globs on names of cases whose predictions do not depend on rounding: their "
        "pixel counts must be equal on every machine",
    )
    seed_spread: Share = Field(
        0.01,
        description="assumed standard deviation of a score over seeds, in 0..1; it is combined "
        "with the measured one and counts as 4 degrees of freedom",
    )
