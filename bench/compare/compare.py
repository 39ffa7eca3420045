"""What changed between two sets of records, by how much, and whether it is noise."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.compare.costs import compare_costs
from bench.compare.facts import compare_facts
from bench.compare.finding import COST_KINDS, Finding, Verdict, not_compared
from bench.compare.scores import Pair, compare_scores, pairs
from bench.compare.settings import asked, changed, software
from bench.compare.snapshot import CaseSnapshot, Snapshot
from bench.suite.gate import Gate

Named = tuple[str, CaseSnapshot]
STATUSES = {"ok": 2, "profiled": 1}  # what there is to compare; of others nothing
THERE = "must be there"


@dataclass(frozen=True)
class Comparison:
    """Two snapshots of a suite compared.

    num_compared: cases of which anything was.
    only_base, only_new: names of cases on one side.
    asked, ran: by case, what was asked, or ran, differently.
    software: what made each side, where that is not the same.
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
        """Return what is worse.

        Args:
            strict: what the base has, and is not there or cannot be compared, is worse, too.
            with_time: time and memory count, and so does that they cannot be compared.
        """
        worse = [one for one in self.findings if one.verdict == "worse"]
        unseen = [one for one in self.findings if one.verdict == "not compared"]
        failing = [one for one in worse if with_time or one.kind not in COST_KINDS]
        failing += [one for one in unseen if (with_time if one.kind in COST_KINDS else strict)]
        gone = self.only_base if strict else ()
        return failing + [
            Finding(name, "case", "record", "worse", change="there → missing", bound=THERE)
            for name in gone
        ]


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
        before, after = base.cases[name], new.cases[name]
        findings += _statuses(name, before, after)
        findings += compare_facts(name, before, after, new.gate)
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
        asked=_told({name: asked(*sides) for name, sides in both.items()}),
        ran=_told(
            {
                name: changed(one.ran, other.ran)
                for name, (one, other) in both.items()
                if one.ran and other.ran  # what did not finish has none
            }
        ),
        software=software(base, new),
    )


def _statuses(name: str, base: CaseSnapshot, new: CaseSnapshot) -> list[Finding]:
    """Say where a case that went well does not any more, or the other way."""
    before, after = STATUSES.get(base.status, 0), STATUSES.get(new.status, 0)
    if before == after:
        return []
    verdict: Verdict = "worse" if after < before else "better"
    reason = f": {' '.join(new.reason.split())}" if new.reason else ""
    change = f"{base.status} → {new.status}{reason}"
    bound = f"must be {base.status}"
    return [Finding(name, "case", "status", verdict, base.status, new.status, change, bound)]


def _gates(base: Snapshot, new: Snapshot) -> list[Finding]:
    """Say that the suite judges by other rules than when the base was made."""
    if base.gate in (Gate(), new.gate) or not new.cases:
        return []
    ours, theirs = (one.gate.model_dump(mode="json") for one in (base, new))
    reason = f"the suite's has changed: {changed(ours, theirs)}"
    return [not_compared(base.suite, "gate", "gate", reason)]


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


def _told(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}
