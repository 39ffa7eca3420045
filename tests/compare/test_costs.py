from typing import Any

import pytest
from fixtures import case_snapshot
from scipy.stats import mannwhitneyu

from bench.compare.costs import compare_costs
from bench.compare.finding import Finding
from bench.compare.snapshot import CaseSnapshot, Epochs


def side(
    image_s: list[float], reference_s: list[float] | None = None, **more: Any
) -> list[CaseSnapshot]:
    epochs = Epochs(
        image_s=tuple(image_s),
        reference_s=tuple([1.0] * len(image_s) if reference_s is None else reference_s),
        peak_memory_mib=tuple(more.pop("memory", [100.0] * len(image_s))),
    )
    given = {"machine": "CPU, 2 threads, fp32"} | more
    case = case_snapshot(
        epochs=epochs,
        **given,
    )
    return [case]


def costs(base: list[CaseSnapshot], new: list[CaseSnapshot], factor: float = 1.5) -> list[Finding]:
    return list(compare_costs("m", base, new, factor))


def test_slower_by_more_than_the_factor_in_every_epoch() -> None:
    base, new = [1.0, 1.1, 0.9, 1.0], [1.7, 1.6, 1.8, 1.6]
    time, memory = costs(side(base), side(new))
    assert (time.verdict, memory.verdict) == ("worse", "same")
    p = mannwhitneyu(new, base, alternative="greater").pvalue
    assert time.bound == f"factor 1.5, Mann-Whitney p = {p:.2g} over 4 and 4 epochs"
    assert time.change == "1.000 → 1.650 x reference (1.65x)"
    assert costs(side(base), side(new), factor=1.7)[0].verdict == "same"
    assert costs(side(new), side(base))[0].verdict == "better"


def test_one_slow_epoch_is_not_enough() -> None:
    assert costs(side([1.0] * 5), side([1.0, 1.0, 1.0, 1.0, 9.0]))[0].verdict == "same"
    assert costs(side([1.0, 3.0, 1.0, 3.0, 1.0]), side([3.0, 1.0, 3.0, 1.0, 3.0]))[0].verdict == (
        "same"
    )


def test_a_busy_machine_does_not_make_the_network_slower() -> None:
    slow = side([2.0, 4.0, 2.0, 3.0], [2.0, 4.0, 2.0, 3.0])
    assert costs(side([1.0] * 4), slow)[0].verdict == "same"


def test_memory() -> None:
    time, memory = costs(side([1.0] * 4), side([1.0] * 4, memory=[170.0] * 4))
    assert (time.verdict, memory.verdict) == ("same", "worse")
    assert memory.change == "100 → 170 MiB (1.70x)"


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (
            side([1.0] * 4, machine="GPU, fp32"),
            "different machines or settings: CPU, 2 threads, fp32 and GPU",
        ),
        (side([1.0] * 4, machine=None), "a machine is unknown or was shared with other cases"),
        (side([1.0] * 4, []), "no reference time was measured"),
        (side([1.0]), "too few epochs without warm-up: 4 and 1"),
        (side([1.0] * 4, memory=[]), "not measured"),
        (side([]), "too few epochs without warm-up: 4 and 0"),
    ],
)
def test_what_is_not_compared(new: list[CaseSnapshot], reason: str) -> None:
    found = costs(side([1.0] * 4), new)
    [first, *_] = [one.bound for one in found if one.verdict == "not compared"]
    assert reason in first
