"""The rows that the tables of one dataset, model or recipe are made of."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records.seeds import over_seeds
from bench.report.protocol import data_of
from bench.report.rows import By
from bench.report.significance import Marks
from bench.suite.columns import column
from bench.suite.suite import Suite


@dataclass(frozen=True)
class Choice:
    """What a reader asks of the tables.

    kinds: of tables; None: all.
    by: what a set of tables is of.
    sort: a column, best first; None: the suite's order.
    reported: whether published figures stand beside ours.
    """

    kinds: tuple[str, ...] | None = None
    by: By = "dataset"
    sort: str | None = None
    reported: bool = True


EVERYTHING = Choice()


@dataclass(frozen=True)
class Group:
    """Rows of one dataset, model or recipe.

    stem: that names of tables begin with.
    title: of the dataset or model; recipe: its name where the tables are of one.
    rows: a row for each model and evaluation, seeds merged.
    failed: cases that came to nothing.
    evaluations: those there are, those of reported splits first.
    changes: what --set and --limit changed of the suite.
    """

    suite: Suite
    stem: str
    title: str
    recipe: str
    rows: pd.DataFrame
    failed: pd.DataFrame
    evaluations: list[str]
    changes: tuple[str, ...]
    choice: Choice
    marks: Marks

    def caption(self, text: str) -> str:
        """Add to a caption what was changed of the suite."""
        return f"{text} (changed: {', '.join(self.changes)})" if self.changes else text

    def of(self, evaluation: str) -> pd.DataFrame:
        """Return the rows of an evaluation, in the order that was asked for."""
        return ordered(self.rows[self.rows["evaluation"] == evaluation], self.choice.sort)

    @property
    def header(self) -> str:
        """What the rows of a table are."""
        return "Data, recipe" if self.choice.by == "model" else "Model"

    @property
    def reported(self) -> list[str]:
        """The evaluations of reported splits; the first one there is where none of them is."""
        wanted = self.suite.splits.report
        found = [key for key in self.evaluations if self.suite.scored[key].split in wanted]
        return found or self.evaluations[:1]

    def name(self, kind: str, evaluation: str) -> str:
        """Name a table, with its evaluation where that is not the first."""
        more = "" if evaluation == self.evaluations[0] else f"-{evaluation}"
        return f"{self.stem}-{kind}{more}"

    def protocols(self, evaluation: str) -> Iterable[tuple[str, pd.DataFrame]]:
        """Split an evaluation's rows by protocol, for scores of two are not comparable.

        Rows of one model are of many protocols and stay together.

        Returns:
            What to call the data of each, and the rows.
        """
        rows = self.of(evaluation)
        named = "" if evaluation == self.suite.scored[evaluation].split else f" ({evaluation})"
        if self.choice.by == "model":
            yield f"{self.title}, {evaluation}", rows
            return
        for protocol, group in rows.groupby("protocol", sort=False):
            data = f"{data_of(json.loads(str(protocol)))}{named}"
            yield f"{data}, {self.recipe}" if self.choice.by == "recipe" else data, group


def ordered(rows: pd.DataFrame, order: str | None) -> pd.DataFrame:
    """Sort rows by a column, best first; as they are where none is named."""
    if order is None or order == "suite" or order not in rows:
        return rows
    return rows.sort_values(order, ascending=column(order).better != "higher", kind="stable")


def groups(
    suite: Suite, frame: pd.DataFrame, changes: tuple[str, ...], choice: Choice, marks: Marks
) -> list[Group]:
    """Split the rows of a suite's records as was asked."""
    keys = {"dataset": ["dataset"], "model": ["label"], "recipe": ["dataset", "recipe"]}[choice.by]
    found = list(frame.groupby(keys, sort=False)) if len(frame) else []
    stems = slugs(["-".join(map(str, values)) for values, _ in found])
    made = []
    for stem, (values, rows) in zip(stems, found, strict=True):
        texts = [str(value) for value in values]
        is_scored = (rows["status"] == "ok") & rows["evaluation"].notna()
        scored, failed = rows[is_scored], _without_scores(rows[~is_scored])
        merged = over_seeds(scored) if len(scored) else scored
        there = set(merged["evaluation"].dropna()) if len(merged) else set()
        made.append(
            Group(
                suite=suite,
                stem=f"{suite.name}-{stem}" if len(found) > 1 else suite.name,
                title=_title(texts[0], merged, choice.by),
                recipe=texts[-1] if choice.by == "recipe" else "",
                rows=merged,
                failed=failed,
                evaluations=[key for key in evaluation_order(suite) if key in there],
                changes=changes,
                choice=choice,
                marks=marks,
            )
        )
    return made


def _title(name: str, rows: pd.DataFrame, by: By) -> str:
    """Return a dataset's own title where its records give it."""
    if by == "model" or not len(rows):
        return name
    return str(json.loads(rows["protocol"].iloc[0])["dataset"])


def _without_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Word what became of cases that have no scores."""
    finished = rows["status"] == "ok"
    reason = rows["reason"].fillna("no reason was recorded")
    return rows.assign(
        status=rows["status"].where(~finished, "not scored"),
        reason=reason.where(~finished, "bench evaluate scores its weights"),
    )


def slugs(names: Sequence[str]) -> list[str]:
    """Return names as those of files and labels, each another."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "unnamed"
        number = 1 + sum(one.lower() == plain.lower() for one in made)
        while number > 1 and f"{plain}-{number}" in made:
            number += 1
        made.append(f"{plain}-{number}" if number > 1 else plain)
    return made


def evaluation_order(suite: Suite) -> Sequence[str]:
    """List a suite's evaluations, those of reported splits first."""
    scored: dict[str, Any] = suite.scored
    reported = [key for key, e in scored.items() if e.split in suite.splits.report]
    return [*reported, *(key for key in scored if key not in reported)]
