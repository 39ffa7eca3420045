"""Time several functions in turn, and compute the ratios of their times."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

NUM_DRAWS = 10_000
Arm = Callable[[], object]


@dataclass(frozen=True)
class Median:
    """A median and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    num: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] of {self.num}"


def in_turn(
    benchmark: BenchmarkFixture, arms: Mapping[str, Arm], rounds: int
) -> dict[str, list[float]]:
    """Run every arm once to warm up, then A B A B …; return the seconds each run took."""
    seconds: dict[str, list[float]] = {}

    def run() -> None:
        seconds.update(alternate(arms, rounds))

    for arm in arms.values():
        arm()
    benchmark.pedantic(run, rounds=1)
    for name, times in seconds.items():
        benchmark.extra_info[f"{name}, s"] = round(float(np.median(times)), 4)
    return seconds


def alternate(arms: Mapping[str, Arm], rounds: int) -> dict[str, list[float]]:
    """Run the arms A B A B …; return the seconds each run took."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(one: Sequence[float], other: Sequence[float]) -> Median:
    """Return the median of the ratios of consecutive runs."""
    return median([a / b for a, b in zip(one, other, strict=True)])


def median(values: Sequence[float]) -> Median:
    """Return the median and its bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (NUM_DRAWS, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Median(float(np.median(values)), float(low), float(high), len(values))


def show(benchmark: BenchmarkFixture, **figures: Median | float) -> None:
    """Print the figures of a benchmark and store them in its results."""
    for name, figure in figures.items():
        benchmark.extra_info[name] = str(figure) if isinstance(figure, Median) else figure
    print(f"\n{benchmark.name}: {dict(benchmark.extra_info)}")
