"""Group the rows of a suite by dataset, model or recipe; tables are made per group."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records.seeds import over_seeds
from bench.report.protocol import changed_term, data_of, mark_changed
from bench.report.rows import By
from bench.report.significance import Ranking
from bench.suite.columns import column
from bench.suite.suite import Suite


@dataclass(frozen=True)
class Choice:
    """Which tables to make, and how.

    kinds: kinds of tables; None: all.
    by: whether tables are made per dataset, per model or per recipe.
    sort: the column that rows are sorted by, best first; None: the suite's order.
    reported: whether to show published values next to ours.
    """

    kinds: tuple[str, ...] | None = None
    by: By = "dataset"
    sort: str | None = None
    reported: bool = True


EVERYTHING = Choice()


@dataclass(frozen=True)
class Group:
    """Rows of one dataset, model or recipe.

    stem: the start of the names of its tables.
    title: the name of the dataset or model.
    recipe: the name of the recipe if tables are made per recipe, else empty.
    rows: one row per model and evaluation, seeds merged.
    failed: cases without scores.
    evaluations: those with scores, reported splits first.
    changes: the settings of --set and --limit.
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
    ranking: Ranking

    def caption(self, text: str) -> str:
        """Mark a caption if --set or --limit changed the suite."""
        return mark_changed(text, self.changes)

    def card(self, terms: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Add the changed settings to the protocol card of a table."""
        return [*terms, *changed_term(self.changes)]

    def of(self, evaluation: str) -> pd.DataFrame:
        """Return the rows of an evaluation in the chosen order."""
        return ordered(self.rows[self.rows["evaluation"] == evaluation], self.choice.sort)

    @property
    def header(self) -> str:
        """The header of the first column."""
        return "Data, recipe" if self.choice.by == "model" else "Model"

    @property
    def reported(self) -> list[str]:
        """The evaluations of reported splits; if there are none, the first evaluation."""
        wanted = self.suite.splits.report
        found = [key for key in self.evaluations if self.suite.scored[key].split in wanted]
        return found or self.evaluations[:1]

    def name(self, kind: str, evaluation: str) -> str:
        """Return the name of a table; any evaluation but the first is part of it."""
        more = "" if evaluation == self.evaluations[0] else f"-{evaluation}"
        return f"{self.stem}-{kind}{more}"

    def protocols(self, evaluation: str) -> Iterable[tuple[str, pd.DataFrame]]:
        """Split an evaluation's rows by protocol, because scores compare only within one.

        In tables per model the protocols always differ, so the rows stay together.

        Yields:
            A title for the data, and the rows.
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
    """Sort rows by a column, best first; keep their order if the column is None or missing."""
    if order is None or order == "suite" or order not in rows:
        return rows
    return rows.sort_values(order, ascending=column(order).better != "higher", kind="stable")


def groups(
    suite: Suite, frame: pd.DataFrame, changes: tuple[str, ...], choice: Choice, ranking: Ranking
) -> list[Group]:
    """Split the rows of a suite by dataset, model or recipe."""
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
                ranking=ranking,
            )
        )
    return made


def _title(name: str, rows: pd.DataFrame, by: By) -> str:
    """Return the dataset's title from its records, or the name if there are none."""
    if by == "model" or not len(rows):
        return name
    return str(json.loads(rows["protocol"].iloc[0])["dataset"])


def _without_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill in status and reason of cases without scores."""
    finished = rows["status"] == "ok"
    reason = rows["reason"].fillna("no reason recorded")
    return rows.assign(
        status=rows["status"].where(~finished, "not scored"),
        reason=reason.where(~finished, "run bench evaluate to score its weights"),
    )


def slugs(names: Sequence[str]) -> list[str]:
    """Turn names into unique names for files and labels."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "unnamed"
        number = 1 + sum(one.lower() == plain.lower() for one in made)
        while number > 1 and f"{plain}-{number}" in made:
            number += 1
        made.append(f"{plain}-{number}" if number > 1 else plain)
    return made


def evaluation_order(suite: Suite) -> Sequence[str]:
    """List a suite's evaluations, reported splits first."""
    scored: dict[str, Any] = suite.scored
    reported = [key for key, e in scored.items() if e.split in suite.splits.report]
    return [*reported, *(key for key in scored if key not in reported)]
