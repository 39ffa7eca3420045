"""Check how long a report takes, and that its time grows only linearly with the records.

    python -m pytest benchmarks/test_reports.py -s

Each model has ten seeds, each case two evaluations with counts.
"""

import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fixtures

from bench.records.record import Resolved, write_resolved
from bench.report.report import report
from bench.report.write import USUAL_FORMATS, write
from bench.suite.expand import expand
from bench.suite.suite import Suite

NUM_SEEDS, LARGE = 10, 10_000
MOST_S = 5.0
MOST_GROWTH = 1.3  # of the time per record


def make_records(folder: Path, num: int) -> Path:
    """Write `num` records whose scores differ between models and seeds."""
    models = [f"m{i}" for i in range(num // NUM_SEEDS)]
    suite = Suite.model_validate(
        {
            "name": f"many{num}",
            "datasets": {"shapes": {}},
            "models": {name: {"arch": "custom/fcn", "label": name} for name in models},
            "recipe": {"epochs": 2},
            "seeds": list(range(NUM_SEEDS)),
        }
    )
    cases, out = expand(suite), folder / suite.name
    for number, case in enumerate(cases):
        fixtures.MIOU[case.model_name, case.seed] = 0.3 + 0.4 * (number * 7919 % 1000) / 1000
        fixtures.write_case(out, case)
    write_resolved(out, Resolved(suite=suite, cases=tuple(cases)))
    return out


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    place = tmp_path_factory.mktemp("records")
    return {num: make_records(place, num) for num in (LARGE // 4, LARGE)}


def test_reports(benchmark: BenchmarkFixture, folders: dict[int, Path], tmp_path: Path) -> None:
    seconds: dict[int, list[tuple[float, float]]] = {num: [] for num in folders}

    def alternate() -> None:
        for _ in range(5):
            for num, folder in folders.items():
                start = time.perf_counter()
                made = report([folder], folder.parent)
                middle = time.perf_counter()
                write(made, USUAL_FORMATS, tmp_path)
                seconds[num].append((middle - start, time.perf_counter() - middle))

    benchmark.pedantic(alternate, rounds=1)
    best = {num: min(of, key=sum) for num, of in seconds.items()}
    for num, (making, writing) in best.items():
        print(f"\n{num} records: tables {making:.2f} s, files {writing:.2f} s")
    small, large = (sum(best[num]) for num in folders)
    print(f"time per record, {LARGE} vs {LARGE // 4}: {large / 4 / small:.2f}")
    assert large / 4 / small < MOST_GROWTH
    assert best[LARGE][0] < MOST_S
