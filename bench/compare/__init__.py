"""What changed between two sets of records, by how much, and whether it is noise."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.compare.accuracy import Pair, compare_scores, pairs
from bench.compare.exact import compare_facts
from bench.compare.finding import Finding, Verdict
from bench.compare.snapshot import CaseSnapshot, Snapshot
from bench.compare.speed import compare_costs

Named = tuple[str, CaseSnapshot]


@dataclass(frozen=True)
class Comparison:
    """Two snapshots of a suite compared.

    num_compared: cases of which anything was.
    only_base, only_new: names of cases on one side.
    asked: by case, what was asked differently.
    software: what made each side, where that is not the same.
    """

    suite: str
    findings: tuple[Finding, ...]
    num_compared: int
    only_base: tuple[str, ...]
    only_new: tuple[str, ...]
    asked: Mapping[str, str]
    software: tuple[str, str] | None

    def failures(self, *, strict: bool, with_time: bool) -> list[Finding]:
        """Return what is worse.

        Args:
            strict: a case, or a score, of the base that is not there or cannot be compared is
                worse, too.
            with_time: time and memory count.
        """
        costs = ("time", "memory")
        worse = [
            one
            for one in self.findings
            if one.verdict == "worse" and (with_time or one.kind not in costs)
        ]
        if not strict:
            return worse
        unseen = [f for f in self.findings if f.verdict == "not compared" and f.kind not in costs]
        gone = [
            Finding(
                name, "case", "record", "worse", change="there → missing", bound="must be there"
            )
            for name in self.only_base
        ]
        return [*worse, *unseen, *gone]


def compare(base: Snapshot, new: Snapshot, factor: float) -> Comparison:
    """Compare two sets of records of a suite, case by case.

    Cases are known by their names, so that one whose code changed is compared, too. Scores are
    of a model's seeds together.

    Args:
        factor: by how much times and memory must differ.
    """
    names = [name for name in base.cases if name in new.cases]
    findings: list[Finding] = []
    for name in names:
        both = base.cases[name], new.cases[name]
        findings += _statuses(name, *both)
        findings += compare_facts(name, *both, new.gate)
    floors = (floor.evaluation for floor in new.gate.floors if floor.evaluation)
    scored = dict.fromkeys((*base.reported, *floors))
    found: list[Pair] = []
    for case, ours, theirs in _models(base, new):
        for one in pairs(case, ours, theirs, scored):
            if isinstance(one, Finding):
                findings.append(one)
            else:
                found.append(one)
        findings += compare_costs(
            case, [one for _, one in ours], [one for _, one in theirs], factor
        )
    findings += compare_scores(found, new.gate, next(iter(base.reported), None))
    compared = {one.case for one in findings if one.verdict != "not compared"}
    return Comparison(
        suite=base.suite,
        findings=tuple(findings),
        num_compared=sum(name in compared for name in names),
        only_base=tuple(name for name in base.cases if name not in new.cases),
        only_new=tuple(name for name in new.cases if name not in base.cases),
        asked=_asked([(name, base.cases[name], new.cases[name]) for name in names]),
        software=_software(base, new),
    )


def _statuses(name: str, base: CaseSnapshot, new: CaseSnapshot) -> list[Finding]:
    """Say where a case that went well does not any more, or the other way."""
    if base.status == new.status:
        return []
    verdict: Verdict = "worse" if base.status == "ok" else "better"
    reason = f": {new.reason}" if new.reason else ""
    change = f"{base.status} → {new.status}{reason}"
    return [Finding(name, "case", "status", verdict, base.status, new.status, change, base.status)]


def _models(base: Snapshot, new: Snapshot) -> list[tuple[str, list[Named], list[Named]]]:
    """Return the seeds of each model that finished on both sides, under one name."""
    found = []
    for model in dict.fromkeys(case.model for case in base.cases.values()):
        ours, theirs = (
            [
                (name, case)
                for name, case in side.cases.items()
                if case.model == model and case.status == "ok"
            ]
            for side in (base, new)
        )
        if ours and theirs:
            seeds = sorted({case.seed for _, case in (*ours, *theirs)})
            found.append((f"{'__'.join(model)}__s{'+'.join(map(str, seeds))}", ours, theirs))
    return found


def _asked(both: Sequence[tuple[str, CaseSnapshot, CaseSnapshot]]) -> dict[str, str]:
    """Say of each case what was asked differently."""
    found = {}
    for name, base, new in both:
        ours, theirs = _flat(base.asked), _flat(new.asked)
        changed = [
            f"{key} {ours.get(key, 'default')} → {theirs.get(key, 'default')}"
            for key in sorted(ours.keys() | theirs.keys())
            if key != "source" and ours.get(key) != theirs.get(key)
        ]
        if ours.get("source") != theirs.get("source"):
            changed.append("the code of the network")
        if changed:
            found[name] = ", ".join(changed)
    return found


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[str, str]:
    """Write nested settings as {"recipe.epochs": "6"}."""
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for key, part in value.items():
            flat |= _flat(part, (*path, key))
        return flat
    return {".".join(path): value if isinstance(value, str) else json.dumps(value)}


def _software(base: Snapshot, new: Snapshot) -> tuple[str, str] | None:
    """Name what made each side, of what is not the same for both."""
    ours, theirs = (
        {
            key: sorted({str(case.software.get(key)) for case in side.cases.values()})
            for key in dict.fromkeys(key for c in side.cases.values() for key in c.software)
        }
        for side in (base, new)
    )
    differing = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if not differing or not (ours and theirs):
        return None
    one, other = (
        ", ".join(
            f"{key} {' and '.join(v[:12] for v in side.get(key, ['-']))}" for key in differing
        )
        for side in (ours, theirs)
    )
    return one, other
