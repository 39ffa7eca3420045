"""Rows of a table: their names, their values, and notes on how they were measured."""

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.report.table import Figure, Footnotes, Rank
from bench.suite.columns import column
from bench.text import listed

Row = Mapping[Hashable, Any]  # one row of a frame
By = Literal["dataset", "model", "recipe"]
OF_TIME = ("epoch_s", "images_per_s")
SHORT_S = 1.0  # shorter epochs are never steady
BUSY = 2.0  # by which the reference kernel or epochs of equal work may differ without a footnote
DATA_BOUND = 0.05  # above this share of time waiting for images, a time gets a footnote


def names(rows: pd.DataFrame, by: By = "dataset") -> "pd.Series[str]":
    """Name rows by label; equal labels also get their recipe, numerics or whatever differs.

    Args:
        rows: with `entry`; rows of one entry share a name, rows of different entries never do.
        by: what tables are made per.

    Returns:
        A name for each row, with the index of `rows`.
    """
    models = rows.drop_duplicates("entry").set_index("entry")
    if by == "model":
        data = models["protocol"].map(lambda text: json.loads(text)["dataset"])
        named = data.astype(str) + ", " + models["recipe"].astype(str)
    else:
        named = models["label"].astype(str)
    how = models["trained_in"].astype(str) + " on " + models["machine"].astype(str)
    for more in (
        ", " + models["recipe"].astype(str),
        ", " + models["dataset"].astype(str),
        " (" + how + ")",
        _differing(models["numerics"]),
        " [" + models["model"].astype(str) + "]",
        " [" + models["variant"].astype(str) + "]",
    ):
        repeated = named.duplicated(keep=False)
        differs = more.groupby(named).transform("nunique") > 1
        named = named.where(~(repeated & differs), named + more)
    number = named.groupby(named).cumcount() + 1
    named = named.where(~named.duplicated(keep=False), named + " #" + number.astype(str))
    return rows["entry"].map(named)


def _differing(numerics: "pd.Series[str]") -> "pd.Series[str]":
    """Describe each model's numerics as far as they differ between models."""
    read = pd.DataFrame([json.loads(text) for text in numerics], index=numerics.index).astype(str)
    differing = [key for key in read if read[key].nunique() > 1]
    texts = read[differing].apply(
        lambda row: ", ".join(f"{key} {row[key]}".replace("_", " ") for key in differing), axis=1
    )
    return (" (" + texts + ")") if differing else pd.Series("", numerics.index)


def each(rows: pd.DataFrame) -> list[tuple[Any, Row]]:
    """Return each row of a frame with its index."""
    return list(zip(rows.index, rows.to_dict("records"), strict=True))


def figure(row: Row, name: str, rank: Rank = "", notes: tuple[int, ...] = ()) -> Figure:
    """Return one value of a row as a cell, in the unit and digits of its column."""
    shown = column(name)
    value, spread = row.get(name), row.get(f"{name}/std")
    several = row.get("num_seeds", 1) > 1 and (shown.of == "evaluation" or name in OF_A_MACHINE)
    return Figure(
        math.nan if value is None else float(value) * shown.scale,
        shown.digits,
        float(spread) * shown.scale if several and spread is not None else math.nan,
        rank,
        notes,
    )


def on_one_machine(rows: pd.DataFrame, footnotes: Footnotes) -> tuple[pd.DataFrame, dict[Any, int]]:
    """Blank the times of all machines except the most frequent one.

    Returns:
        The rows, and the footnote of each row whose times were blanked, by its index.
    """
    of_one = rows["num_machines"] <= 1  # the others have no times
    machines = rows.loc[of_one, "machine"].dropna()
    if machines.nunique() < 2:
        return rows, {}
    here = machines.mode()[0]
    elsewhere = of_one & (rows["machine"] != here)
    timed = rows.copy()
    timed.loc[elsewhere, [*OF_A_MACHINE]] = float("nan")
    notes = {
        index: footnotes.add(
            f"Times and memory not shown: measured on another machine ({machine})."
        )
        for index, machine in rows.loc[elsewhere, "machine"].items()
    }
    return timed, notes


@dataclass(frozen=True)
class Timing:
    """Footnotes of times that are not the network's own.

    rows: those of the table; the fastest reference kernel on a machine is that of a machine at
        rest.
    """

    rows: pd.DataFrame
    footnotes: Footnotes

    def notes(self, row: Row, name: str) -> tuple[int, ...]:
        """Return the footnotes of a figure of a row; none if it is no time, or a good one."""
        if name not in OF_TIME or not row.get(name, math.nan) > 0:
            return ()
        texts = [text for text in (_data_bound(row), self._busy(row)) if text]
        return tuple(self.footnotes.add(text) for text in texts)

    def _busy(self, row: Row) -> str:
        """Say how unsteady the machine was while a case was timed."""
        least, most = row["least_reference_s"], row["most_reference_s"]
        at_rest = self.rows.loc[self.rows["machine"] == row["machine"], "least_reference_s"].min()
        slowed, longest = most / at_rest, row["most_seconds"] / row["least_seconds"]
        if math.isnan(slowed) or row["most_seconds"] < SHORT_S or max(slowed, longest) <= BUSY:
            return ""  # without the reference, nothing is known about the machine
        than = "at best" if least == at_rest else "beside other models"
        return (
            f"Busy machine: epochs took {row['least_seconds']:.3g} to {row['most_seconds']:.3g} s, "
            f"and a reference kernel beside them up to {slowed:.1f} times as long as {than}; the "
            "time says little about the network."
        )


def _data_bound(row: Row) -> str:
    """Say how much of a time was spent waiting for images, if it is much."""
    share = row.get("data_wait_share", 0.0)
    if not share > DATA_BOUND:
        return ""
    return (
        f"Data-bound: {100 * share:.0f} % of the time was spent waiting for images (more than "
        f"{100 * DATA_BOUND:.0f} %), so this is not the network's own speed."
    )


def conditions(rows: pd.DataFrame) -> list[str]:
    """Describe machine, precision, seeds, split batches and models that were not trained."""
    notes = []
    rows = rows.sort_values("num_seeds", ascending=False, kind="stable").drop_duplicates("entry")
    pooled = rows[rows["num_machines"] > 1]
    for machine in dict.fromkeys(pooled["machine"]):
        who = listing(pooled["label"][pooled["machine"] == machine])
        notes.append(
            f"{who}: seeds ran on {machine}; their scores are pooled, times and memory are not "
            "shown."
        )
    alone = rows[rows["num_machines"] <= 1]
    measured = alone[["machine", "trained_in"]].dropna().drop_duplicates()
    for machine, trained_in in measured.itertuples(index=False):
        of = rows[(rows["machine"] == machine) & (rows["trained_in"] == trained_in)]
        who = "" if len(of) == len(rows) else f": {listing(of['label'])}"
        notes.append(f"Measured on {machine}, {trained_in}{who}.")
    notes += _over_seeds(rows)
    halved = rows[rows["micro_batch"] < rows["asked_micro_batch"]]
    for label, at_once, batch in halved[["label", "micro_batch", "batch_size"]].to_numpy():
        notes.append(
            f"{label}: out of memory, so batches of {batch:.0f} were split into micro-batches of "
            f"{at_once:.0f} images; BatchNorm sees one micro-batch at a time."
        )
    untrained = rows[rows["epochs"] == 0]
    for start in dict.fromkeys(untrained["start"]):
        who = listing(untrained["label"][untrained["start"] == start])
        notes.append(f"{who}: {start}, not trained.")
    return notes


def _over_seeds(rows: pd.DataFrame) -> list[str]:
    """Say how many seeds the spread is over, by model if that differs."""
    seeds = sorted(set(rows["num_seeds"]), reverse=True)
    if seeds == [1]:
        return []
    if len(seeds) == 1:
        return [f"Mean ± standard deviation over {seeds[0]} seeds."]
    shown = (f"{num} for {listing(rows['label'][rows['num_seeds'] == num])}" for num in seeds)
    return [f"Mean ± standard deviation over seeds ({'; '.join(shown)})."]


def missing_times(rows: pd.DataFrame) -> list[str]:
    """Say which times are missing, and why."""
    shared, untimed = rows["num_sharing"] > 1, rows["epoch_s"].isna() & (rows["epochs"] > 0)
    notes = []
    if shared.any():
        who = listing(rows["label"][shared])
        notes.append(f"No times for models trained while other cases used the machine: {who}.")
    alone = rows[untimed & ~shared]
    if (alone["epochs"] == 1).any():
        notes.append("No time per epoch for models trained for one epoch: the first is a warm-up.")
    return notes


def listing(labels: "pd.Series[Any]") -> str:
    """List names without repeats; a long list ends in "and N more"."""
    return listed(dict.fromkeys(map(str, labels)))
