"""Write a comparison as Markdown, as one line, or as JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from bench.compare.compare import Comparison
from bench.compare.finding import Finding
from bench.text import listed, plural

VERSION = 1  # of the JSON keys; raised if a key is renamed, removed or changes its meaning
HEADERS = ["Verdict", "Case", "Figure", "Base → new", "Bound"]


def line(one: Comparison, failures: Sequence[Finding]) -> str:
    """Summarise a comparison in one line."""
    head = f"bench compare {one.suite}"
    if not one.num_compared:
        return f"{head}: nothing was compared"
    cases = f"{plural(one.num_compared, 'case')} compared"
    missing = f", {len(one.only_base)} missing" if one.only_base else ""
    if not failures:
        unseen = len({f.case for f in one.findings if _is_unscored(f)})
        but = f" (scores of {plural(unseen, 'case')} not comparable)" if unseen else ""
        return f"{head}: passed, {cases}{missing}, nothing worse{but}"
    first = failures[0]
    more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
    return (
        f"{head}: FAILED, {cases}{missing}, {plural(len(failures), 'failure')}: {first.case}, "
        f"{first.figure}, {first.reason}{more}"
    )


def _is_unscored(finding: Finding) -> bool:
    return finding.verdict == "not compared" and finding.kind == "score"


def markdown(one: Comparison, failures: Sequence[Finding]) -> str:
    """Write a comparison in Markdown, for a terminal, a job summary or a pull request."""
    parts = [f"**{line(one, failures)}**"]
    shown = [f for f in one.findings if _is_shown(f) and f not in failures]
    together: dict[tuple[str, ...], list[str]] = {}
    for finding in (*failures, *shown):
        together.setdefault(_cells(finding, finding in failures), []).append(finding.case)
    rows = [[verdict, listed(cases), *rest] for (verdict, *rest), cases in together.items()]
    if rows:
        parts.append(tabulate(rows, HEADERS, tablefmt="pipe", disable_numparse=True))
    notes = [*_costs(one), *_lists(one)]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _is_shown(finding: Finding) -> bool:
    """Return whether to show a finding: one that changed, but not a time within the factor."""
    if finding.verdict == "not compared":
        return False
    return finding.verdict != "same" or (finding.kind == "score" and finding.is_changed)


def _cells(finding: Finding, fails: bool) -> tuple[str, ...]:
    """Return the cells that cases must have in common to share a row."""
    verdict: str = finding.verdict
    if fails:
        verdict = f"**{verdict}**"
    elif verdict == "worse":
        verdict = "worse (advice)"
    elif verdict == "same":
        verdict = "not significant"
    cells = (verdict, finding.figure, finding.change, finding.bound)
    return tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)


def _costs(one: Comparison) -> Iterable[str]:
    """Summarise the times and memory that were compared."""
    for kind, title in (("time", "Time per image"), ("memory", "Peak memory")):
        ratios = [
            f.new / f.base for f in one.findings if f.kind == kind and f.verdict != "not compared"
        ]
        if ratios:
            least, most = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
            times = least if least == most else f"{least} to {most}"
            yield f"{title}: {times} times the base's ({plural(len(ratios), 'model')})."


def _lists(one: Comparison) -> Iterable[str]:
    if one.suite != one.new_suite:
        yield f"Different suites: {one.suite} (base) and {one.new_suite} (new)."
    if one.only_base:
        yield f"Only in the base: {listed(one.only_base)}."
    if one.only_new:
        yield f"Only in the new records: {listed(one.only_new)}."
    reasons: dict[str, list[str]] = {}
    for finding in one.findings:
        if finding.verdict == "not compared":
            reason = f"{finding.figure} ({finding.bound})"
            reasons.setdefault(reason, []).append(finding.case)
    for reason, cases in reasons.items():
        yield f"Not compared: {reason}: {listed(cases)}."
    for title, differing in (("settings", one.asked), ("numerics", one.ran)):
        together: dict[str, list[str]] = {}
        for case, changed in differing.items():
            together.setdefault(changed, []).append(case)
        for changed, cases in together.items():
            yield f"Different {title}: {changed}: {listed(cases)}."
    if one.software is not None:
        yield f"Different software: {one.software[0]} (base) and {one.software[1]} (new)."


def as_json(one: Comparison, failures: Sequence[Finding]) -> dict[str, Any]:
    """Return a comparison as data for JSON."""
    return {
        "version": VERSION,
        "suite": one.suite,
        "summary": line(one, failures),
        "passed": bool(one.num_compared) and not failures,
        "num_compared": one.num_compared,
        "failures": [_plain(finding) for finding in failures],
        "findings": [_plain(f) for f in one.findings if f.is_changed],
        "not_compared": [_plain(f) for f in one.findings if f.verdict == "not compared"],
        "only_base": one.only_base,
        "only_new": one.only_new,
        "asked": dict(one.asked),
        "ran": dict(one.ran),
        "software": one.software,
    }


def _plain(finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON; infinity and NaN, which JSON lacks, become None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(finding).items()
    }
