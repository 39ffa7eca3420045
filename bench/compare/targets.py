"""Find both sides of a comparison on disk: baselines, suites or folders of results."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bench.compare.compare import Comparison, compare
from bench.compare.records import of_records
from bench.compare.snapshot import Snapshot, read_baseline
from bench.errors import UserError
from bench.records.record import now
from bench.records.sources import find
from bench.suite.catalog import is_suite


def compare_targets(base: Path, new: Path | None, results: Path, factor: float) -> list[Comparison]:
    """Compare two sets of records, suite by suite.

    Args:
        base, new: baselines, suites or folders; if new is None, the records in `results` of the
            base's suites.
        factor: by which time or memory must differ to count as worse or better.

    Raises:
        UserError: if there is nothing to compare, or it would be compared with itself.
    """
    if not 1 < factor < math.inf:
        raise UserError(f"The factor must be greater than 1, such as 1.5, not {factor:g}.")
    ours = snapshots(base, results)
    if not ours:
        raise UserError(f"No results in {base}; make some with bench run SUITE.")
    theirs = _new_side(ours, new, results)
    made = []
    for one in ours:
        other = theirs[0] if len(ours) == len(theirs) == 1 else _named(one.suite, theirs)
        if {f.resolve() for f in one.folders} & {f.resolve() for f in other.folders}:
            raise UserError(
                f"{base} would be compared with itself; name another target to compare it with."
            )
        made.append(compare(one, other, factor))
    return made


def snapshots(target: Path, results: Path, settings: Sequence[str] = ()) -> list[Snapshot]:
    """Read a baseline, or the records in the folders of suites.

    Raises:
        UserError: if there is no such target, or two folders below it have the same name.
    """
    if not target.exists() and target != results and not is_suite(target):
        raise UserError(
            f"{target} does not exist; name a baseline (.json), a suite (.yaml) or a folder of "
            "results."
        )
    if target.suffix == ".json":
        return [read_baseline(target)]
    sources = find([target], results, settings)
    for one, other in pairwise(sorted(sources, key=lambda source: source.title)):
        if one.title == other.title:
            raise UserError(
                f"{target} has two folders named {one.title}: {one.folders[0]} and "
                f"{other.folders[0]}; choose one."
            )
    return [of_records(source) for source in sources]


def _new_side(ours: Sequence[Snapshot], new: Path | None, results: Path) -> list[Snapshot]:
    """Read the new side; suites without records get an empty snapshot."""
    if new is not None:
        return snapshots(new, results) or [_empty(one.suite) for one in ours]
    found = []
    for one in ours:
        folder = results / one.suite
        known = snapshots(folder, results) if folder.is_dir() else []
        found.append(_named(one.suite, known))
    return found


def _named(suite: str, found: Sequence[Snapshot]) -> Snapshot:
    return next((one for one in found if one.suite == suite), _empty(suite))


def _empty(suite: str) -> Snapshot:
    return Snapshot(suite=suite, made=now())
