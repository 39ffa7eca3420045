"""What `compare` and `baseline` do."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from bench.compare import compare, text
from bench.compare.records import of_records
from bench.compare.snapshot import FINISHED, CaseSnapshot, Snapshot, read_baseline, save
from bench.errors import Exit, UserError
from bench.record import now
from bench.sources import find

BASELINES = "baselines"  # below the results
Form = Literal["md", "line", "json"]


def compare_targets(
    base: Path,
    new: Path | None,
    results: Path,
    *,
    strict: bool,
    with_time: bool,
    factor: float,
    form: Form,
) -> tuple[str, Exit]:
    """Compare two sets of records.

    Args:
        base, new: baselines, suites or folders; new None: the records of the base's suites in
            `results`.
        strict: what is missing or cannot be compared fails, too.

    Returns:
        What to print, and the exit code.
    """
    if not 1 < factor < math.inf:
        raise UserError(f"--factor is more than 1, such as 1.5, not {factor:g}.")
    ours = _snapshots(base, results)
    if not ours:
        raise UserError(f"No results in {base}; bench run SUITE makes some.")
    theirs = _new_ones(ours, new, results)
    made, failed, num_compared = [], False, 0
    for one in ours:
        other = theirs[0] if len(ours) == len(theirs) == 1 else _named(one.suite, theirs)
        if {f.resolve() for f in one.folders} & {f.resolve() for f in other.folders}:
            raise UserError(f"{base} would be compared with itself; name what to compare it with.")
        comparison = compare(one, other, factor)
        failures = comparison.failures(strict=strict, with_time=with_time)
        failed = failed or bool(failures)
        num_compared += comparison.num_compared
        made.append((comparison, failures))
    unseen = [one.suite for one, _ in made if not one.num_compared]
    if form == "json":
        printed = "\n".join(json.dumps(text.as_json(*one), allow_nan=False) for one in made)
    else:
        write = text.line if form == "line" else text.markdown
        printed = "\n".join(write(*one) for one in made)
        if form == "md" and unseen:
            printed += f"\n{_hint(unseen, new or results)}\n"
    if not num_compared:
        return printed, Exit.NOTHING_COMPARED
    return printed, Exit.WORSE if failed else Exit.OK


def _hint(suites: Sequence[str], where: Path) -> str:
    """Say where records were looked for, and what lies there under other names."""
    apart = sorted(folder.name for suite in suites for folder in where.glob(f"{suite}@*"))
    others = f" There are {', '.join(apart)}: name one." if apart else ""
    return (
        f"Of {', '.join(suites)} nothing to compare lies in {where}; bench run makes records, or "
        f"name their folder.{others}"
    )


def _snapshots(target: Path, results: Path, settings: Sequence[str] = ()) -> list[Snapshot]:
    """Read a baseline, or what lies in the folders of suites."""
    if not target.exists() and target != results:
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
                f"{target} has two folders {one.title}: {one.folders[0]} and {other.folders[0]}; "
                "name one."
            )
    return [of_records(source) for source in sources]


def _new_ones(ours: Sequence[Snapshot], new: Path | None, results: Path) -> list[Snapshot]:
    """Read the side that is judged; of suites of which there is nothing, an empty one."""
    if new is not None:
        return _snapshots(new, results) or [_empty(one.suite) for one in ours]
    found = []
    for one in ours:
        folder = results / one.suite
        there = _snapshots(folder, results) if folder.is_dir() else []
        found.append(_named(one.suite, there))
    return found


def _named(suite: str, snapshots: Sequence[Snapshot]) -> Snapshot:
    return next((one for one in snapshots if one.suite == suite), _empty(suite))


def _empty(suite: str) -> Snapshot:
    return Snapshot(suite=suite, made=now())


def save_baseline(
    target: Path,
    file: Path | None,
    results: Path,
    settings: Sequence[str] = (),
    pattern: str | None = None,
) -> Path:
    """Write the baseline of a suite whose cases have all finished, and return its file.

    Args:
        pattern: a glob on case names: a part of the suite.

    Raises:
        UserError: where a case has no record, or failed.
    """
    snapshots = _snapshots(target, results, settings)
    if len(snapshots) != 1 or target.suffix == ".json":
        raise UserError(f"A baseline is of one suite; {target} is not a suite or its folder.")
    snapshot = snapshots[0].only(pattern or "*")
    cases = snapshot.cases.items()
    lacks = {
        "without a record": snapshot.missing,
        "failed": [name for name, case in cases if case.status not in FINISHED],
        "without facts or scores": [name for name, case in cases if _lacks(case, snapshot)],
    }
    if any(lacks.values()):
        told = "; ".join(f"{what}: {text.some(names)}" for what, names in lacks.items() if names)
        raise UserError(
            f"A baseline is of finished cases; {told} (in {snapshot.folders[0]}). bench run and "
            "bench evaluate make what is missing; --filter takes a part."
        )
    if not snapshot.cases:
        raise UserError(f"No case matches {pattern!r}.")
    below = compare(snapshot, snapshot, math.inf).failures(strict=False, with_time=False)
    if below:
        told = "; ".join(f"{one.case}, {one.figure}: {one.reason}" for one in below)
        raise UserError(f"A baseline must pass its own suite's gate. {told}.")
    file = file or results / BASELINES / f"{snapshot.suite}.json"
    if file.suffix != ".json":
        raise UserError(f"A baseline is a .json file, not {file}.")
    save(snapshot, file)
    return file


def _lacks(case: CaseSnapshot, snapshot: Snapshot) -> bool:
    """Say whether a finished case has nothing to be compared by."""
    scored = case.status != "ok" or all(key in case.evaluations for key in snapshot.reported)
    return case.status in FINISHED and not (case.facts and scored)


def baseline_text(files: Sequence[Path], results: Path) -> str:
    """Describe baselines: what made them, and their figures."""
    found = list(files) or sorted((results / BASELINES).glob("*.json"))
    if not found:
        raise UserError(
            f"No baselines in {results / BASELINES}; bench baseline save SUITE writes one."
        )
    return "\n\n".join(_described(file, read_baseline(file)) for file in found)


def _described(file: Path, snapshot: Snapshot) -> str:
    cases = snapshot.cases.values()
    software = sorted(
        {f"bench {c.software.get('bench')}, PyTorch {c.software.get('torch')}" for c in cases}
    )
    commits = sorted({str(c.software.get("commit"))[:12] for c in cases})
    machines = sorted({case.machine for case in cases if case.machine})
    rows = [_row(name, case, snapshot.reported) for name, case in snapshot.cases.items()]
    head = (
        f"{file}: {len(rows)} cases of {snapshot.suite}, saved {snapshot.made}\n"
        f"made by {' and '.join(software)} (commit {' and '.join(commits)}) on "
        f"{' and '.join(machines) or 'any machine'}\n"
        f"gate: {snapshot.gate.model_dump_json()}\n"
    )
    headers = ["case", "parameters", "GMAC", "mIoU"]
    return f"{head}\n{tabulate(rows, headers, disable_numparse=True)}"


def _row(name: str, case: CaseSnapshot, reported: Sequence[str]) -> list[str]:
    found = {key: case.evaluations[key].scores for key in reported if key in case.evaluations}
    miou = (f"{key} {_percent(scores.get('miou'))}" for key, scores in found.items())
    params, gmacs = case.facts.get("num_params"), case.facts.get("gmacs")
    return [
        name,
        "-" if params is None else f"{params:,}",
        "-" if gmacs is None else f"{gmacs:.3f}",
        ", ".join(miou) or "-",
    ]


def _percent(score: float | None) -> str:
    return "none" if score is None else f"{100 * score:.2f} %"
