"""The stages of the measurement, in their order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.gpu import programs, speed, waiting
from benchmarks.gpu.rows import Row
from benchmarks.gpu.settings import Settings


@dataclass(frozen=True)
class Stage:
    """A part of the measurement.

    rows: yields what it finds as it goes, so that this is kept if the stage is ended.
    share: of the time that is left, that it may take.
    least_s: seconds below which it is not begun.
    """

    title: str
    rows: Callable[[Settings], Iterator[Row]]
    share: float
    least_s: float


STAGES = {
    "machine": Stage("The machine", speed.machine, 0.1, 5),
    "tests": Stage("Tests marked gpu", programs.tests, 0.25, 30),
    "selftest": Stage("`bench selftest`", programs.selftest, 0.15, 20),
    "fast": Stage("Training steps in each way", speed.fast_against_plain, 0.3, 30),
    "compiled": Stage("Compiled training steps", speed.compiled, 0.4, 40),
    "data": Stage("Epochs from files against one batch in memory", waiting.data, 0.25, 20),
    "readbacks": Stage("Waits for the device per training step", waiting.readbacks, 0.2, 15),
    "scoring": Stage("Scoring's share of an evaluation", waiting.scoring, 0.15, 10),
    "cases": Stage("Cases of camvid_all", programs.cases, 1.0, 45),
}
