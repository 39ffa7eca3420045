"""Rows of a table: their names, their figures, the conditions they were made under."""

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any, Literal

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.report.table import Figure, Footnotes, Rank
from bench.suite.columns import column
from bench.text import listed

Row = Mapping[Hashable, Any]  # of a frame
By = Literal["dataset", "model", "recipe"]
OF_TIME = ("epoch_s", "images_per_s")
DATA_BOUND = 0.05  # the share of an epoch that may wait for images


def names(rows: pd.DataFrame, by: By = "dataset") -> "pd.Series[str]":
    """Name rows by label, and by recipe, numerics and what else tells two models apart.

    Args:
        rows: with `entry`; rows of one entry have one name, those of two never.
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
        told = more.groupby(named).transform("nunique") > 1
        named = named.where(~(repeated & told), named + more)
    number = named.groupby(named).cumcount() + 1
    named = named.where(~named.duplicated(keep=False), named + " #" + number.astype(str))
    return rows["entry"].map(named)


def _differing(numerics: "pd.Series[str]") -> "pd.Series[str]":
    """Say of each model's numerics what is not the same for all."""
    read = pd.DataFrame([json.loads(text) for text in numerics], index=numerics.index).astype(str)
    differing = [key for key in read if read[key].nunique() > 1]
    texts = read[differing].apply(
        lambda row: ", ".join(f"{key} {row[key]}".replace("_", " ") for key in differing), axis=1
    )
    return (" (" + texts + ")") if differing else pd.Series("", numerics.index)


def each(rows: pd.DataFrame) -> list[tuple[Any, Row]]:
    """Return the rows of a frame by their index."""
    return list(zip(rows.index, rows.to_dict("records"), strict=True))


def figure(row: Row, name: str, rank: Rank = "", notes: tuple[int, ...] = ()) -> Figure:
    """Return a figure of a row in the unit and digits of its column."""
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
    """Leave the times of one machine, that of most rows; those of others have a footnote."""
    machines = rows["machine"].dropna()
    if machines.nunique() < 2:
        return rows, {}
    here = machines.mode()[0]
    elsewhere = rows["machine"] != here
    timed = rows.copy()
    timed.loc[elsewhere, [*OF_A_MACHINE]] = float("nan")
    notes = {
        index: footnotes.add(f"Times and memory are of another machine, {machine}: not shown.")
        for index, machine in rows.loc[elsewhere, "machine"].items()
    }
    return timed, notes


def data_bound(row: Row, name: str, footnotes: Footnotes) -> tuple[int, ...]:
    """Return the footnote of a time that waited for images."""
    share = row.get("data_wait_share", 0.0)
    if name not in OF_TIME or not share > DATA_BOUND:
        return ()
    text = (
        f"Data-bound: training waited for images {100 * share:.0f} % of the time (more than "
        f"{100 * DATA_BOUND:.0f} %), which is not the network's."
    )
    return (footnotes.add(text),)


def conditions(rows: pd.DataFrame) -> list[str]:
    """Say how many seeds, on what and in which precision."""
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
            f"{label}: for lack of memory {at_once:.0f} images of a batch of {batch:.0f} were "
            "computed at once; BatchNorm saw no more."
        )
    if (rows["epochs"] == 0).any():
        who = listing(rows["label"][rows["epochs"] == 0])
        notes.append(f"Not trained here, scored with the weights given: {who}.")
    return notes


def _over_seeds(rows: pd.DataFrame) -> list[str]:
    """Say what the spread is over, and for whom where that differs."""
    seeds = sorted(set(rows["num_seeds"]), reverse=True)
    if seeds == [1]:
        return []
    if len(seeds) == 1:
        return [f"Mean ± standard deviation over {seeds[0]} seeds."]
    shown = (f"{num} of {listing(rows['label'][rows['num_seeds'] == num])}" for num in seeds)
    return [f"Mean ± standard deviation over seeds: {'; '.join(shown)}."]


def missing_times(rows: pd.DataFrame) -> list[str]:
    """Say which times are missing."""
    shared, untimed = rows["num_sharing"] > 1, rows["epoch_s"].isna() & (rows["epochs"] > 0)
    notes = []
    if shared.any():
        who = listing(rows["label"][shared])
        notes.append(f"No times of cases that shared the machine with others: {who}.")
    alone = rows[untimed & ~shared]
    if (alone["epochs"] == 1).any():
        notes.append("No time per epoch where only one was trained: the first is a warm-up.")
    return notes


def listing(labels: "pd.Series[Any]") -> str:
    """List names, each once, and how many more there are."""
    return listed(dict.fromkeys(map(str, labels)))
