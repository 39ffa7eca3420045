"""One figure of one case on both sides, and what to think of it."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["fact", "score", "time", "memory", "case", "gate"]
Verdict = Literal["worse", "better", "same", "not compared"]
COST_KINDS = ("time", "memory")


@dataclass(frozen=True)
class Finding:
    """One figure.

    case: its name; models of several seeds have all of them in it.
    base, new: the figure itself; scores in 0..1, times as multiples of the reference.
    change: both as they are shown.
    bound: what the verdict goes by.
    low, high: of the interval of new - base, for scores.
    rests_on: the names of the cases, where these are several.
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
        """What changed, and the first of what the verdict goes by."""
        first = self.bound.partition(";")[0]
        return f"{self.change}: {first}" if self.change else first

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the cases that this says something of."""
        says = self.verdict == "worse" if self.kind == "case" else self.verdict != "not compared"
        return (self.rests_on or (self.case,)) if says else ()


def not_compared(case: str, kind: Kind, figure: str, reason: str) -> Finding:
    """Say why a figure has no verdict."""
    return Finding(case, kind, figure, "not compared", bound=reason)
