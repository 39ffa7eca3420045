"""The cost of networks without training: counts and latencies from `bench profile`."""

import pandas as pd

from bench.report.protocol import changed_note, mark_changed
from bench.report.rows import each, figure
from bench.report.table import Cell, Header, Table, Text

SHOWN = {  # headers short enough for a page
    "num_params": Header("all", "Params (M)"),
    "num_trainable": Header("trainable", "Params (M)"),
    "num_unreached": Header("no grad.", "Params (M)"),
    "model_mb": Header("model", "Size (MB)"),
    "checkpoint_mb": Header("checkpoint", "Size (MB)"),
    "gmacs": Header("MACs (G)"),
    "latency_p50_ms": Header("p50", "Latency (ms)"),
    "latency_p95_ms": Header("p95", "Latency (ms)"),
    "inference_images_per_s": Header("img/s"),
}


def profile(name: str, rows: pd.DataFrame, changes: tuple[str, ...]) -> list[Table]:
    """Make one table per machine and precision."""
    return [
        _table(name, here, f"{machine}, {precision}", changes)
        for (machine, precision), here in rows.groupby(
            ["machine", "precision"], sort=False, dropna=False
        )
    ]


def _table(name: str, rows: pd.DataFrame, timed_on: str, changes: tuple[str, ...]) -> Table:
    headers = [Header("Model"), Header("K"), *SHOWN.values(), Header("timed at")]
    body: list[list[Cell]] = [
        [
            Text(str(row["label"])),
            Text(str(row["num_classes"])),
            *(figure(row, column) for column in SHOWN),
            Text(str(row["timed_size"])),
        ]
        for _, row in each(rows)
    ]
    sizes = ", ".join(dict.fromkeys(rows["macs_size"]))
    notes = [
        "K: number of classes. No grad.: parameters that get no gradient in training.",
        f"Latency and img/s: one image at a time, from uint8 to logits, on {timed_on}.",
        *changed_note(changes),
    ]
    caption = mark_changed(f"Complexity without training; MACs per image of {sizes}", changes)
    return Table("profile", f"{name}-profile", caption, headers, body, notes=notes)
