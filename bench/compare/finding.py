"""One figure of one case on both sides, and what to think of it."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["fact", "score", "time", "memory", "case"]
Verdict = Literal["worse", "better", "same", "not compared"]


@dataclass(frozen=True)
class Finding:
    """One figure.

    case: its name; models of several seeds have all of them in it.
    base, new: the figure itself; scores in 0..1, times as multiples of the reference.
    change: both as they are shown.
    bound: what the verdict goes by.
    low, high: of the interval of new - base, for scores.
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

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to show."""
        return self.verdict in ("worse", "better") or self.base != self.new


def not_compared(case: str, kind: Kind, figure: str, reason: str) -> Finding:
    """Say why a figure has no verdict."""
    return Finding(case, kind, figure, "not compared", bound=reason)
