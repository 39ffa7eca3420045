"""What a suite says of its own comparison: which figures are too low, which must be equal."""

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


class Floor(Frozen):
    """Scores that a model must reach, the mean over its seeds."""

    case: str = Field(description="glob on case names, <dataset>__<model>__<recipe>__s<seed>")
    evaluation: str | None = Field(None, description="defaults to the first reported one")
    values: dict[Annotated[str, AfterValidator(_known_score)], Share] = Field(
        min_length=1, description=f"in 0..1, by score: {', '.join(SHARES)}"
    )


class Gate(Frozen):
    """When bench compare calls a score worse."""

    floors: tuple[Floor, ...] = Field((), description="scores that models must reach")
    exact: tuple[str, ...] = Field(
        (),
        description="globs on names of cases whose predictions hang on no rounding: the pixels "
        "counted must be equal on every machine",
    )
    seed_spread: Share = Field(
        0.01,
        description="standard deviation of a score over seeds, in 0..1, that is assumed beside "
        "what the seeds show: as much as 4 further degrees of freedom",
    )
