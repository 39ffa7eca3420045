"""Rows of a table: their names, their values, and notes on how they were measured."""

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any, Literal

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.report.table import Figure, Footnotes, Rank
from bench.suite.columns import column
from bench.text import listed

Row = Mapping[Hashable, Any]  # one row of a frame
By = Literal["dataset", "model", "recipe"]
OF_TIME = ("epoch_s", "images_per_s")
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
    machines = rows["machine"].dropna()
    if machines.nunique() < 2:
        return rows, {}
    here = machines.mode()[0]
    elsewhere = rows["machine"] != here
    timed = rows.copy()
    timed.loc[elsewhere, [*OF_A_MACHINE]] = float("nan")
    notes = {
        index: footnotes.add(
            f"Times and memory not shown: measured on another machine ({machine})."
        )
        for index, machine in rows.loc[elsewhere, "machine"].items()
    }
    return timed, notes


def data_bound(row: Row, name: str, footnotes: Footnotes) -> tuple[int, ...]:
    """Return the footnote of a time that includes much waiting for images."""
    share = row.get("data_wait_share", 0.0)
    if name not in OF_TIME or not share > DATA_BOUND:
        return ()
    text = (
        f"Data-bound: {100 * share:.0f} % of the time was spent waiting for images (more than "
        f"{100 * DATA_BOUND:.0f} %), so this is not the network's own speed."
    )
    return (footnotes.add(text),)


def conditions(rows: pd.DataFrame) -> list[str]:
    """Describe machine, precision, seeds, split batches and models that were not trained."""
    notes = []
    rows = rows.sort_values("num_seeds", ascending=False, kind="stable").drop_duplicates("entry")
    measured = rows[["machine", "trained_in"]].dropna().drop_duplicates()
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
    if (rows["epochs"] == 0).any():
        who = listing(rows["label"][rows["epochs"] == 0])
        notes.append(f"Scored with the given weights, without training: {who}.")
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
