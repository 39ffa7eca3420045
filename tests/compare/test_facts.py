from typing import Any

import numpy as np
from fixtures import case_snapshot

from bench.compare.facts import compare_facts
from bench.compare.finding import Finding
from bench.compare.snapshot import CaseSnapshot, Scored
from bench.evaluation import scores
from bench.suite.gate import Gate

COUNTS = np.array([[60, 40], [70, 30], [50, 20], [1, 2]])
NAME = "d__m__r__s0"
FACTS = {"num_params": 1000, "size": [48, 64], "gmacs": 1.5, "shapes": "abc", "model_bytes": 4000}
NO_GATE = Gate()


def case(facts: dict[str, Any] | None = None, **more: Any) -> CaseSnapshot:
    given = {
        "protocol": {"split": "val", "fingerprint": "f"},
        "scores_version": 1,
        "classes": ("a", "b"),
        "scores": scores.scores(COUNTS) | {"loss": 1.0},
        "totals": COUNTS.tolist(),
    } | more
    return case_snapshot(
        facts=FACTS if facts is None else facts,
        evaluations={"val": Scored(**given)},
    )


def worse(base: CaseSnapshot, new: CaseSnapshot, gate: Gate = NO_GATE) -> list[Finding]:
    return [f for f in compare_facts(NAME, base, new, gate) if f.verdict == "worse"]


def test_equal_facts() -> None:
    assert not worse(case(), case())


def test_every_fact_must_be_equal() -> None:
    for fact, value, shown in (
        ("num_params", 999, "1,000 → 999"),
        ("size", [48, 48], "48x64 → 48x48"),
        ("gmacs", 1.25, "1.5 → 1.25"),
        ("shapes", "abd", "abc → abd"),
        ("model_bytes", 4004, "4,000 → 4,004"),
    ):
        [found] = worse(case(), case(FACTS | {fact: value}))
        assert (found.case, found.change, found.bound) == (NAME, shown, "must be equal")


def unseen(base: CaseSnapshot, new: CaseSnapshot) -> list[str]:
    found = compare_facts(NAME, base, new, NO_GATE)
    return [f"{f.figure}: {f.bound}" for f in found if f.verdict == "not compared"]


def test_what_the_new_record_lacks_is_not_compared() -> None:
    older = {key: value for key, value in FACTS.items() if key != "shapes"}
    assert not unseen(case(older), case())
    assert unseen(case(), case(older)) == ["names and shapes of tensors: the new record has none"]
    assert unseen(case(), case(totals=None)) == ["pixels of val: the new record has no counts"]
    gone = case().model_copy(update={"evaluations": {}})
    assert unseen(case(), gone) == ["val: the new record has no such evaluation"]


def test_pixels_of_a_class_are_facts_and_predictions_only_if_the_suite_says_so() -> None:
    truth, predicted = COUNTS.copy(), COUNTS.copy()
    truth[0] = 61, 39
    predicted[1] = 71, 29
    [found] = worse(case(), case(totals=truth.tolist()))
    assert found.figure == "val: pixels"
    assert found.change == "a 60 → 61, b 40 → 39"
    assert not worse(case(), case(totals=predicted.tolist()))
    [found] = worse(case(), case(totals=predicted.tolist()), Gate(exact=("*__m__*",)))
    assert found.figure == "val: pixels predicted"


def test_pixels_of_different_data_are_not_compared() -> None:
    other = case(totals=(2 * COUNTS).tolist(), protocol={"split": "val", "fingerprint": "g"})
    assert not worse(case(), other)
    assert unseen(case(), other) == ["pixels of val: counted on different data"]


def test_classes_that_changed_names() -> None:
    [found] = worse(case(), case(classes=("a", "c")))
    assert found.figure == "classes of val"


def test_stored_counts_reproduce_the_stored_scores() -> None:
    changed = scores.scores(COUNTS) | {"miou": 0.5}
    [found] = worse(case(scores=changed), case())
    # a: 50 of 60 + 70 - 50, b: 20 of 40 + 30 - 20
    assert found.figure == "mIoU from stored counts, val"
    assert found.change == f"50.0000 → {100 * (50 / 80 + 20 / 50) / 2:.4f} %"
