"""Pair published values with ours."""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from bench.report.rows import Row, each
from bench.report.table import Footnotes
from bench.suite.columns import of_case
from bench.suite.tables import Reported


@dataclass(frozen=True)
class Beside:
    """A published value and our row that goes with it.

    row: ours, seeds merged; None if there is none.
    is_exact: whether our value and theirs are of the same split.
    remarks: why the two are not comparable, or only in part.
    """

    item: Reported
    name: str
    value: float
    row: Row | None
    is_exact: bool
    remarks: tuple[str, ...]

    @property
    def ours(self) -> float:
        """Our value in the record's units; NaN if there is none."""
        found = None if self.row is None else self.row.get(self.name)
        return math.nan if found is None else float(found)


def beside(item: Reported, rows: pd.DataFrame, evaluations: list[str]) -> list[Beside]:
    """Find our values for the published values of a case.

    Scores are compared on the same split. If we have no score on that split, our first evaluation
    is used, and a remark says so.

    Args:
        rows: one row per model and evaluation, seeds merged.
        evaluations: in the order of reports.
    """
    matching = rows.loc[[matches(item.case, folders) for folders in rows["folders"]]]
    found = []
    for name, value in item.values.items():
        ours, remarks, exact = matching, [item.not_comparable] if item.not_comparable else [], True
        if of_case(name):
            ours = matching[matching[name].notna()]
            recorded = ours[ours["evaluation"].notna()]
            ours = recorded if len(recorded) else ours
        elif len(matching):
            ours = matching[matching["split"] == item.split]
            if not len(ours):
                ours, exact = matching[matching["evaluation"] == evaluations[0]], False
                splits = sorted(set(ours["split"]))
                remarks += [f"published on {item.split}, ours on {split}" for split in splits]
        ours = _first_of_each(ours, evaluations)
        if not len(ours):
            found.append(Beside(item, name, value, None, exact, tuple(remarks)))
        for _, row in each(ours):
            found.append(Beside(item, name, value, row, exact, tuple(remarks)))
    return found


def _first_of_each(rows: pd.DataFrame, evaluations: list[str]) -> pd.DataFrame:
    """Keep one evaluation per model: the first in the order of reports."""
    order = rows["evaluation"].map({key: i for i, key in enumerate(evaluations)})
    rows = rows.assign(order=order).sort_values("order", kind="stable")
    return rows.drop_duplicates("entry").sort_index()


def matches(pattern: str, folders: tuple[str, ...]) -> bool:
    """Return whether a glob matches the name of a case, given its folders."""
    names = (Path(folder).name.rpartition("__")[0] for folder in folders)
    return any(fnmatchcase(name, pattern) for name in names)


def remarks_of(one: Beside, footnotes: Footnotes) -> tuple[int, ...]:
    """Return the footnotes that say why a published value is not comparable."""
    return tuple(footnotes.add(f"Not comparable: {remark}.") for remark in one.remarks)
