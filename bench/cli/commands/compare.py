"""The commands `compare` and `baseline`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from bench.compare import render
from bench.compare.compare import compare
from bench.compare.snapshot import FINISHED, CaseSnapshot, Snapshot, read_baseline, save
from bench.compare.targets import compare_targets, snapshots
from bench.errors import Exit, UserError
from bench.text import listed, percent, plural

BASELINES = "baselines"  # below the results
Form = Literal["md", "line", "json"]


def compare_sides(
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
        base, new: as of `compare_targets`.
        strict: what is missing or cannot be compared fails, too.
        with_time: time and memory fail, too.

    Returns:
        What to print, and the exit code.
    """
    found = compare_targets(base, new, results, factor)
    made = [(one, one.failures(strict=strict, with_time=with_time)) for one in found]
    unseen = [one.suite for one in found if not one.num_compared]
    if form == "json":
        printed = "\n".join(json.dumps(render.as_json(*one), allow_nan=False) for one in made)
    else:
        write = render.line if form == "line" else render.markdown
        printed = "\n".join(write(*one) for one in made)
        if form == "md" and unseen:
            printed += f"\n{_hint(unseen, new or results)}\n"
    if len(unseen) == len(found):
        return printed, Exit.NOTHING_COMPARED
    return printed, Exit.NEGATIVE if any(failures for _, failures in made) else Exit.OK


def _hint(suites: Sequence[str], where: Path) -> str:
    """Return where records were searched, and the folders with changed settings there."""
    apart = sorted(folder.name for suite in suites for folder in where.glob(f"{suite}@*"))
    others = f" It has {', '.join(apart)}: name one." if apart else ""
    return (
        f"{where} has no records of {', '.join(suites)} to compare. Run the suite, or name the "
        f"folder of its records.{others}"
    )


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
        UserError: if the target is not one suite, no case matches, a case has no record or
            failed, the file is not .json, or the suite fails its own gate.
    """
    found = snapshots(target, results, settings)
    if len(found) != 1 or target.suffix == ".json":
        raise UserError(f"A baseline holds one suite; {target} is not a suite or its folder.")
    snapshot = found[0].only(pattern or "*")
    cases = snapshot.cases.items()
    lacks = {
        "without a record": snapshot.missing,
        "failed": [name for name, case in cases if case.status not in FINISHED],
        "without facts or scores": [name for name, case in cases if _lacks(case, snapshot)],
    }
    if any(lacks.values()):
        problems = "; ".join(f"{what}: {listed(names)}" for what, names in lacks.items() if names)
        raise UserError(
            f"A baseline holds finished cases; {problems} (in {snapshot.folders[0]}). Make them "
            "with bench run and bench evaluate, or choose some cases with --filter."
        )
    if not snapshot.cases:
        raise UserError(f"No case matches {pattern!r}.")
    below = compare(snapshot, snapshot, math.inf).failures(strict=False, with_time=False)
    if below:
        reasons = "; ".join(f"{one.case}, {one.figure}: {one.reason}" for one in below)
        raise UserError(f"A baseline must pass its own suite's gate. {reasons}.")
    file = file or results / BASELINES / f"{snapshot.suite}.json"
    if file.suffix != ".json":
        raise UserError(f"A baseline is a .json file, not {file}.")
    save(snapshot, file)
    return file


def _lacks(case: CaseSnapshot, snapshot: Snapshot) -> bool:
    """Return whether a finished case has nothing to compare."""
    scored = case.status != "ok" or all(key in case.evaluations for key in snapshot.reported)
    return case.status in FINISHED and not (case.facts and scored)


def baseline_text(files: Sequence[Path], results: Path) -> str:
    """Describe baselines: their figures, and what made them.

    Raises:
        UserError: if there are none.
    """
    found = list(files) or sorted((results / BASELINES).glob("*.json"))
    if not found:
        raise UserError(
            f"No baselines in {results / BASELINES}; write one with bench baseline save SUITE."
        )
    return "\n\n".join(_described(file, read_baseline(file)) for file in found)


def _described(file: Path, snapshot: Snapshot) -> str:
    cases = snapshot.cases.values()
    software = sorted(
        {f"bench {c.software.get('bench')}, PyTorch {c.software.get('torch')}" for c in cases}
    )
    commits = sorted({str(c.software.get("commit") or "unknown")[:12] for c in cases})
    machines = sorted({case.machine for case in cases if case.machine})
    rows = [_row(name, case, snapshot.reported) for name, case in snapshot.cases.items()]
    head = (
        f"{file}: {plural(len(rows), 'case')} of {snapshot.suite}, saved {snapshot.made}\n"
        f"made by {' and '.join(software)} (commit {' and '.join(commits)}) on "
        f"{' and '.join(machines) or 'any machine'}\n"
        f"gate: {snapshot.gate.model_dump_json()}\n"
    )
    headers = ["case", "parameters", "GMAC", "mIoU"]
    return f"{head}\n{tabulate(rows, headers, disable_numparse=True)}"


def _row(name: str, case: CaseSnapshot, reported: Sequence[str]) -> list[str]:
    found = {key: case.evaluations[key].scores for key in reported if key in case.evaluations}
    miou = (f"{key} {percent(scores.get('miou'))}" for key, scores in found.items())
    params, gmacs = case.facts.get("num_params"), case.facts.get("gmacs")
    return [
        name,
        "-" if params is None else f"{params:,}",
        "-" if gmacs is None else f"{gmacs:.3f}",
        ", ".join(miou) or "-",
    ]
