"""What networks cost without training: counts and latencies, measured by `bench profile`."""

import pandas as pd

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


def profile(name: str, rows: pd.DataFrame) -> list[Table]:
    """Make a table for each machine and precision that something was timed in."""
    return [
        _table(name, here, f"{machine}, {precision}")
        for (machine, precision), here in rows.groupby(
            ["machine", "precision"], sort=False, dropna=False
        )
    ]


def _table(name: str, rows: pd.DataFrame, timed_on: str) -> Table:
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
        "K: classes. No grad.: parameters that training never reaches.",
        f"Latency and img/s of single images, from uint8 to logits, on {timed_on}.",
    ]
    caption = f"Complexity without training; MACs of one image of {sizes}"
    return Table("profile", f"{name}-profile", caption, headers, body, notes=notes)
