"""What `compare` and `baseline` do."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from bench.compare import compare, text
from bench.compare.records import of_records
from bench.compare.snapshot import Snapshot, read_baseline, save
from bench.errors import Exit, UserError
from bench.record import now
from bench.sources import find

BASELINES = "baselines"  # below the results
FINISHED = ("ok", "profiled")
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
        What to print, and the exit code: worse in anything goes before nothing compared.
    """
    if factor <= 1:
        raise UserError(f"--factor is more than 1, such as 1.5, not {factor:g}.")
    ours = _snapshots(base, results)
    if not ours:
        raise UserError(f"No results in {base}; bench run SUITE makes some.")
    theirs = _new_ones(ours, new, results, base)
    made, failed, num_compared = [], False, 0
    for one in ours:
        other = theirs[0] if len(ours) == len(theirs) == 1 else _named(one.suite, theirs)
        comparison = compare(one, other, factor)
        failures = comparison.failures(strict=strict, with_time=with_time)
        failed = failed or bool(failures)
        num_compared += comparison.num_compared
        made.append((comparison, failures))
    if form == "json":
        printed = "\n".join(json.dumps(text.as_json(*one)) for one in made)
    else:
        write = text.line if form == "line" else text.markdown
        printed = "\n".join(write(*one) for one in made)
    if not num_compared:
        return printed, Exit.NOTHING_COMPARED
    return printed, Exit.WORSE if failed else Exit.OK


def _snapshots(target: Path, results: Path, settings: Sequence[str] = ()) -> list[Snapshot]:
    """Read a baseline, or what lies in the folders of suites."""
    if target.suffix == ".json":
        return [read_baseline(target)]
    return [of_records(source) for source in find([target], results, settings)]


def _new_ones(
    ours: Sequence[Snapshot], new: Path | None, results: Path, base: Path
) -> list[Snapshot]:
    """Read the side that is judged; of suites of which there is nothing, an empty one."""
    if new is not None:
        return _snapshots(new, results) or [_empty(one.suite) for one in ours]
    found = []
    for one in ours:
        folder = results / one.suite
        if base.is_dir() and folder.resolve() in (base.resolve(), *base.resolve().parents):
            raise UserError(f"{base} would be compared with itself; name what to compare it with.")
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
    failed = [name for name, case in snapshot.cases.items() if case.status not in FINISHED]
    if snapshot.missing or failed:
        raise UserError(
            "A baseline is of finished cases; bench run trains them, --filter takes a part. "
            f"Without a record: {_listed(snapshot.missing)}; failed: {_listed(failed)}."
        )
    if not snapshot.cases:
        raise UserError(f"No case matches {pattern!r}.")
    file = file or results / BASELINES / f"{snapshot.suite}.json"
    save(snapshot, file)
    return file


def _listed(names: Sequence[str]) -> str:
    return text.some(names) if names else "none"


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
    rows = []
    for name, case in snapshot.cases.items():
        found = {k: case.evaluations[k].scores for k in snapshot.reported if k in case.evaluations}
        miou = ", ".join(f"{k} {100 * (s['miou'] or math.nan):.2f} %" for k, s in found.items())
        facts = case.facts
        rows.append([name, f"{facts['num_params']:,}", f"{facts['gmacs']:.3f}", miou or "-"])
    head = (
        f"{file}: {len(rows)} cases of {snapshot.suite}, saved {snapshot.made}\n"
        f"made by {' and '.join(software)} (commit {' and '.join(commits)}) on "
        f"{' and '.join(machines) or 'any machine'}\n"
    )
    headers = ["case", "parameters", "GMAC", "mIoU"]
    return f"{head}\n{tabulate(rows, headers, disable_numparse=True)}"
