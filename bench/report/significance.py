"""Find the best scores of a column, and those not significantly different from the best."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.evaluation.bootstrap import (
    CONFIDENCE,
    NUM_DRAWS,
    Sampled,
    difference,
    draw_images,
    sample,
)
from bench.records.counts import StoredCounts, load_counts
from bench.report.table import Rank
from bench.suite.columns import IOU, SCORES

MOST_COMPARED = 30  # models of a table, best mIoU first
COMPARABLE = ["protocol", "scores_version"]
OF_COUNTS = SCORES.keys() - {"loss"}
Ranks = Mapping[tuple[Any, str], Rank]  # by index of the row and column


class Ranking:
    """The ranks in a report's tables; bootstrap draws are shared between tables."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[object, ...], dict[Any, Mapping[str, Sampled]] | str] = {}

    def of(self, rows: pd.DataFrame, columns: Sequence[str]) -> tuple[Ranks, list[str]]:
        """Rank the models in each column of scores.

        Args:
            rows: one per model, of one evaluation and one protocol.

        Returns:
            The rank of each value that has one, and the notes that explain the ranks.
        """
        asked = [name for name in columns if name.startswith(IOU) or name in OF_COUNTS]
        compared = rows[rows["miou"].notna()].nlargest(MOST_COMPARED, "miou")
        if not asked or len(compared) < 2 or len(rows[COMPARABLE].drop_duplicates()) > 1:
            return {}, []
        key = (*compared["folders"], *compared["evaluation"])
        if key not in self._drawn:
            self._drawn[key] = _draw(compared)
        drawn = self._drawn[key]
        if isinstance(drawn, str):
            return {}, [drawn]
        found: dict[tuple[Any, str], Rank] = {}
        there = set.intersection(*(set(one) for one in drawn.values()))
        for name in (name for name in asked if name in there):
            for index, rank in zip(drawn, _ranked(drawn, name), strict=True):
                if rank:
                    found[index, name] = rank
        return found, [_explain(compared, len(rows))]


def _draw(rows: pd.DataFrame) -> dict[Any, Mapping[str, Sampled]] | str:
    """Return each row's scores on the drawn images, or the reason why there are none."""
    counts: dict[Any, list[StoredCounts]] = {}
    for index, row in rows.iterrows():  # few
        read = [load_counts(folder, row["evaluation"]) for folder in row["folders"]]
        if any(one is None for one in read):
            return (
                f"Nothing is bold: {row['label']} has no per-image counts to test differences with."
            )
        counts[index] = [one for one in read if one is not None]
    ids = {one.ids for several in counts.values() for one in several}
    if len(ids) > 1:
        return "Nothing is bold: the models were not scored on the same images in the same order."
    draws = draw_images(len(next(iter(ids))))
    return {
        index: sample([one.per_image for one in several], rows.loc[index, "class_names"], draws)
        for index, several in counts.items()
    }


def _ranked(drawn: Mapping[Any, Mapping[str, Sampled]], name: str) -> list[Rank]:
    """Rank the models by one score."""
    sampled = [one[name] for one in drawn.values()]
    values = np.array([one.value for one in sampled])
    ranks: list[Rank] = ["" for _ in sampled]
    if not (values > 0).any():  # if every score is 0, no model is best
        return ranks
    best = sampled[int(np.nanargmax(values))]
    for place, one in enumerate(sampled):
        if one.value > 0 and not difference(best, one).is_significant:
            ranks[place] = "best"
    left = np.where([bool(rank) for rank in ranks], np.nan, values)
    if len(sampled) > 2 and (left > 0).any():
        ranks[int(np.nanargmax(left))] = "second"
    return ranks


def _explain(compared: pd.DataFrame, num_rows: int) -> str:
    several = compared["num_seeds"].max() > 1
    seeds = " and variance over seeds" if several else ""
    once = "" if several else " One seed each, so this says nothing about retraining."
    among = f" of the {MOST_COMPARED} models with the best mIoU" if num_rows > MOST_COMPARED else ""
    return (
        f"Bold: best{among}, or not significantly different from it (paired bootstrap over "
        f"images{seeds}, {NUM_DRAWS} draws, {100 * CONFIDENCE:.0f} %).{once} Underlined or italic: "
        "next best."
    )
