"""The cost of models: time, parameters, sizes, MACs, memory; one table per machine."""

import json

import pandas as pd

from bench.report.group import Group
from bench.report.protocol import changed_note
from bench.report.rows import Timing, conditions, each, figure, missing_times, names
from bench.report.table import Cell, Footnotes, Header, Table, Text
from bench.report.tables.failures import failed_note
from bench.suite.columns import COLUMNS

ALWAYS = ("epoch_s", "num_params", "model_mb")  # as in enet-r2unet-pspnet, table 1
MORE = (
    "checkpoint_mb",
    "gmacs",
    "images_per_s",
    "tflops",
    "mfu",
    "latency_p50_ms",
    "latency_p95_ms",
    "peak_memory_mib",
)


def complexity(group: Group) -> list[Table]:
    """Make one table per machine."""
    if not group.evaluations:
        return []
    rows = group.of(group.evaluations[0])
    return [_table(group, here) for _, here in rows.groupby("machine", sort=False, dropna=False)]


def _meaning(columns: list[str]) -> list[str]:
    """Say what the columns of achieved operations mean, if they are shown."""
    if "tflops" not in columns:
        return []
    return [
        "Achieved: operations of the forward and backward pass, per second of training. MFU: their "
        "share of what a large matrix product reaches on this machine in this precision."
    ]


def _table(group: Group, rows: pd.DataFrame) -> Table:
    footnotes = Footnotes()
    timing = Timing(rows, footnotes)
    columns = [*ALWAYS, *(name for name in MORE if rows[name].notna().any())]
    body: list[list[Cell]] = []
    for name, (_, row) in zip(names(rows, group.choice.by), each(rows), strict=True):
        notes: tuple[int, ...] = ()
        if row["num_unreached"] > 0:
            count = f"{row['num_unreached'] / 1e6:.2f} M of its parameters get no gradient."
            notes = (footnotes.add(count),)
        cells: list[Cell] = [Text(name)]
        for column in columns:
            own = notes if column == "num_params" else timing.notes(row, column)
            cells.append(figure(row, column, notes=own))
        body.append(cells)
    sizes = ", ".join(dict.fromkeys(rows["macs_size"]))
    limits = {json.loads(protocol)["limit"] for protocol in rows["protocol"]} - {None}
    of = f" of {group.title}" if group.choice.by == "model" else f" on {group.title}"
    of += f", {group.recipe}" if group.recipe else ""
    limit = f", limited to {', '.join(map(str, sorted(limits)))}" if limits else ""
    return Table(
        "complexity",
        f"{group.stem}-complexity",
        group.caption(f"Complexity{of}{limit}; MACs per image of {sizes}"),
        [Header(group.header), *(Header(COLUMNS[column].title) for column in columns)],
        body,
        notes=[
            *conditions(rows),
            *_meaning(columns),
            *missing_times(rows),
            *failed_note(group.failed),
            *changed_note(group.changes),
        ],
        footnotes=footnotes.texts,
    )
