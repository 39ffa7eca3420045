"""The cost of networks without training: counts and latencies from `bench profile`."""

import math

import pandas as pd

from bench.report.protocol import changed_note, mark_changed
from bench.report.rows import Row, each, figure
from bench.report.table import Cell, Footnotes, Header, Table, Text
from bench.text import enumerated, plural

ALWAYS = {  # headers short enough for a page
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
ACHIEVED = {  # shown if they are known: older profiles lack the second
    "inference_tflops": Header("Achieved (TFLOP/s)"),
    "inference_mfu": Header("MFU (%)"),
}

MFU = (
    "MFU: the achieved operations as a share of what a large matrix product reaches on this "
    "machine in the same precision."
)
SAME = ["machine", "macs_size"]  # within a table
HOW = ["precision", "memory_format", "compile", "timed_batch"]  # a network is timed
TIMES = (
    "latency_p50_ms",
    "latency_p95_ms",
    "inference_images_per_s",
    "inference_tflops",
    "inference_mfu",
)


def profile(name: str, rows: pd.DataFrame, changes: tuple[str, ...]) -> list[Table]:
    """Make one table per machine; latencies are of one image size.

    If networks were timed in several ways, such as in two precisions, each way is a row.
    """
    return [_table(name, here, changes) for _, here in rows.groupby(SAME, sort=False, dropna=False)]


def _table(name: str, rows: pd.DataFrame, changes: tuple[str, ...]) -> Table:
    footnotes = Footnotes()
    timed = rows[rows["latency_p50_ms"].notna()]
    size = _usual((timed if len(timed) else rows)["timed_size"])
    ways = rows[HOW].drop_duplicates()
    shown = ALWAYS | (ACHIEVED if rows["inference_mfu"].notna().any() else {})
    headers = [Header("Model"), Header("K"), *shown.values()]
    if len(ways) > 1:
        headers.insert(1, Header("Timed in"))
    body: list[list[Cell]] = []
    for _, row in each(rows.assign(**_at_one_size(rows, size))):
        notes: tuple[int, ...] = ()
        if isinstance(row["untimed"], str):
            notes = (footnotes.add(f"Not timed: {row['untimed']}."),)
        elif row["timed_size"] != size:
            notes = (footnotes.add(f"Latency not shown: measured at {row['timed_size']}."),)
        cells: list[Cell] = [Text(str(row["label"]), notes), Text(str(row["num_classes"]))]
        if len(ways) > 1:
            cells.insert(1, Text(_way(row, with_batch=ways["timed_batch"].nunique() > 1)))
        body.append([*cells, *(figure(row, column) for column in shown)])
    sizes = ", ".join(dict.fromkeys(rows["macs_size"]))
    (_, first), *_ = each(rows)
    batches = sorted({int(batch) for batch in rows["timed_batch"]})
    images = "one image" if batches == [1] else f"{enumerated([str(b) for b in batches])} images"
    way = f", {_way(first, with_batch=False)}" if len(ways) == 1 else ""
    notes_below = [
        "K: number of classes. No grad.: parameters that get no gradient in training.",
        f"Latency and img/s: {images} of {size} at a time, from uint8 to logits, on "
        f"{first['machine']}{way}.",
        *([MFU] if shown.keys() >= ACHIEVED.keys() else []),
        *changed_note(changes),
    ]
    caption = mark_changed(f"Complexity without training; MACs per image of {sizes}", changes)
    return Table(
        "profile",
        f"{name}-profile",
        caption,
        headers,
        body,
        notes=notes_below,
        footnotes=footnotes.texts,
    )


def _way(row: Row, with_batch: bool) -> str:
    """Say how a network was timed: "bf16, channels_last, compiled, 8 images"."""
    parts = [str(row["precision"])]
    parts += [] if row["memory_format"] == "contiguous" else [str(row["memory_format"])]
    parts += [f"compiled ({row['compile']})"] if isinstance(row["compile"], str) else []
    parts += [plural(int(row["timed_batch"]), "image")] if with_batch else []
    return ", ".join(parts)


def _at_one_size(rows: pd.DataFrame, size: str) -> dict[str, "pd.Series[float]"]:
    """Blank latencies of other image sizes: they do not compare."""
    return {name: rows[name].where(rows["timed_size"] == size) for name in TIMES}


def _usual(sizes: "pd.Series[str]") -> str:
    """Return the most frequent size HxW, and of several the largest."""
    counts = sizes.value_counts()
    return str(max(counts.index, key=lambda size: (counts[size], math.prod(_sides(str(size))))))


def _sides(size: str) -> list[int]:
    return [int(side) for side in size.split("x")]
