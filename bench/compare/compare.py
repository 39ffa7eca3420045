"""Compare two sets of records: what changed, by how much, and whether it is noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.compare.costs import compare_costs
from bench.compare.facts import compare_facts
from bench.compare.finding import COST_KINDS, Finding, Verdict, not_compared
from bench.compare.scores import Pair, compare_scores, pairs
from bench.compare.settings import asked, changed, software
from bench.compare.snapshot import CaseSnapshot, Snapshot
from bench.machine.numerics import read_numerics
from bench.suite.gate import Gate

Named = tuple[str, CaseSnapshot]
STATUSES = {"ok": 2, "profiled": 1}  # higher is better; all other statuses count as 0
MUST_EXIST = "must exist"


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two snapshots of a suite.

    num_compared: cases with at least one figure compared.
    only_base, only_new: names of cases that are on one side only.
    asked, ran: differences in settings and in numerics, by case.
    software: what made each side; None if it is the same.
    """

    suite: str
    new_suite: str
    findings: tuple[Finding, ...]
    num_compared: int
    only_base: tuple[str, ...]
    only_new: tuple[str, ...]
    asked: Mapping[str, str]
    ran: Mapping[str, str]
    software: tuple[str, str] | None

    def failures(self, *, strict: bool, with_time: bool) -> list[Finding]:
        """Return the findings that count as failures.

        Args:
            strict: what the base has and the new side lacks, or cannot be compared, fails too.
            with_time: time and memory fail too, if they are worse or cannot be compared.
        """
        worse = [one for one in self.findings if one.verdict == "worse"]
        unseen = [one for one in self.findings if one.verdict == "not compared"]
        failing = [one for one in worse if with_time or one.kind not in COST_KINDS]
        failing += [one for one in unseen if (with_time if one.kind in COST_KINDS else strict)]
        gone = self.only_base if strict else ()
        return failing + [
            Finding(name, "case", "record", "worse", change="present → missing", bound=MUST_EXIST)
            for name in gone
        ]


def compare(base: Snapshot, new: Snapshot, factor: float) -> Comparison:
    """Compare two sets of records of a suite, case by case.

    Cases are matched by name, so a case whose code changed is compared too. Scores are compared
    over all seeds of a model.

    Args:
        factor: by which time or memory must differ to count as worse or better.
    """
    names = [name for name in base.cases if name in new.cases]
    findings: list[Finding] = []
    for name in names:
        before, after = base.cases[name], new.cases[name]
        findings += _statuses(name, before, after)
        findings += compare_facts(name, before, after, new.gate)
    minimums = (minimum.evaluation for minimum in new.gate.floors if minimum.evaluation)
    scored = dict.fromkeys((*base.reported, *minimums))
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
    findings += _gates(base, new)
    measured = {name for one in findings for name in one.measured}
    both = {name: (base.cases[name], new.cases[name]) for name in names}
    return Comparison(
        suite=base.suite,
        new_suite=new.suite,
        findings=tuple(findings),
        num_compared=sum(name in measured for name in base.cases),
        only_base=tuple(name for name in base.cases if name not in new.cases),
        only_new=tuple(name for name in new.cases if name not in base.cases),
        asked=_without_empty({name: asked(*sides) for name, sides in both.items()}),
        ran=_without_empty(
            {
                name: changed(numerics(one), numerics(other))
                for name, (one, other) in both.items()
                if one.ran and other.ran  # cases that did not finish have none
            }
        ),
        software=software(base, new),
    )


def _statuses(name: str, base: CaseSnapshot, new: CaseSnapshot) -> list[Finding]:
    """Return a finding if a case stopped succeeding, or began to succeed."""
    before, after = STATUSES.get(base.status, 0), STATUSES.get(new.status, 0)
    if before == after:
        return []
    verdict: Verdict = "worse" if after < before else "better"
    reason = f": {' '.join(new.reason.split())}" if new.reason else ""
    change = f"{base.status} → {new.status}{reason}"
    bound = f"must be {base.status}"
    return [Finding(name, "case", "status", verdict, base.status, new.status, change, bound)]


def _gates(base: Snapshot, new: Snapshot) -> list[Finding]:
    """Return a finding if the gate of the suite changed since the base was made."""
    if base.gate in (Gate(), new.gate) or not new.cases:
        return []
    ours, theirs = (one.gate.model_dump(mode="json") for one in (base, new))
    reason = f"the suite's gate has changed: {changed(ours, theirs)}"
    return [not_compared(base.suite, "gate", "gate", reason)]


def _models(base: Snapshot, new: Snapshot) -> list[tuple[str, list[Named], list[Named]]]:
    """Return a name and both sides' finished cases for each model that has some on both sides."""
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


def numerics(side: CaseSnapshot) -> dict[str, Any]:
    """Return what ran; what an older version did not write has its default."""
    return read_numerics(side.ran).as_dict()


def _without_empty(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}
