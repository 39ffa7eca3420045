"""One figure of one case on both sides, with the verdict."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["fact", "score", "time", "memory", "case", "gate"]
Verdict = Literal["worse", "better", "same", "not compared"]
COST_KINDS = ("time", "memory")


@dataclass(frozen=True)
class Finding:
    """One figure of one case on both sides, with the verdict.

    case: its name; for a model with several seeds, it lists all seeds.
    base, new: the values; scores in 0..1, times as multiples of the reference.
    change: both values, as shown.
    bound: the criterion for the verdict.
    low, high: ends of the interval of new - base, for scores.
    rests_on: the names of the cases, if it covers several.
    """

    case: str
    kind: Kind
    figure: str
    verdict: Verdict
    base: Any = None
    new: Any = None
    change: str = ""
    bound: str = ""
    low: float | None = None
    high: float | None = None
    rests_on: tuple[str, ...] = ()

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to show."""
        return self.verdict in ("worse", "better") or self.base != self.new

    @property
    def reason(self) -> str:
        """The change and the main criterion for the verdict."""
        first = self.bound.partition(";")[0]
        return f"{self.change}: {first}" if self.change else first

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the cases that this compares."""
        says = self.verdict == "worse" if self.kind == "case" else self.verdict != "not compared"
        return (self.rests_on or (self.case,)) if says else ()


def not_compared(case: str, kind: Kind, figure: str, reason: str) -> Finding:
    """Make the finding of a figure that cannot be compared, with the reason."""
    return Finding(case, kind, figure, "not compared", bound=reason)
