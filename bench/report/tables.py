"""The tables of a suite's records: summary, complexity, metrics, per-class IoU, its own."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from bench.columns import COLUMNS, SCORES
from bench.frame import over_seeds
from bench.report.formats import EMPTY, Cell, Figure, Header, Table
from bench.suite import Suite

SUMMARY = ("miou", "pixel_accuracy", "num_params", "model_mb", "epoch_s")
COMPLEXITY = ("epoch_s", "num_params", "model_mb", "checkpoint_mb", "gmacs", "images_per_s")
PROFILE = {  # headers short enough for a page
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
OF_TIME = {"epoch_s", "images_per_s"}
DATA_BOUND, DATA_BOUND_MARK = 0.05, "†"  # the share of an epoch that may wait for images
METRICS = ("dice", "f1", "miou", "pixel_accuracy", "sensitivity", "loss")
MOST_CLASS_COLUMNS = 8
MOST_OF_A_REASON = 100


def build_tables(suite: Suite, frame: pd.DataFrame, profiles: pd.DataFrame) -> list[Table]:
    """Make every table of every dataset and protocol that the records hold.

    Args:
        frame: rows of `bench.frame.load` in the order that tables are to have.
        profiles: the same of `bench.frame.load_profiles`.
    """
    tables: list[Table] = []
    datasets = list(frame.groupby("dataset", sort=False)) if len(frame) else []
    several = len(datasets) > 1
    for dataset, rows in datasets:
        name = f"{suite.name}-{dataset}" if several else suite.name
        scored, failed = rows[rows["status"] == "ok"], rows[rows["status"] != "ok"]
        merged = over_seeds(scored) if len(scored) else scored
        there = set(merged["evaluation"].dropna()) if len(merged) else set()
        order = [key for key in _evaluation_order(suite) if key in there]
        if not order:
            tables.append(_only_failed(name, str(dataset), failed))
            continue
        main = list(_protocols(merged, order[0]))
        tables += [_summary(name, protocol, group, failed) for protocol, group in main]
        tables.append(_complexity(name, str(dataset), merged, order[0], failed))
        tables += _metrics(name, str(dataset), suite, merged, order, failed)
        tables += [_per_class(name, protocol, group, failed) for protocol, group in main]
        for key, table in suite.tables.items():
            for protocol, group in _protocols(merged, table.evaluation or order[0]):
                caption = table.caption or f"{key}: {_caption(protocol)}"
                ordered = _ordered(group, table.order)
                columns = table.columns
                own = _plain_table(key, f"{name}-{key}", caption, columns, ordered, failed)
                tables.append(replace(own, notes=[f"{_caption(protocol)}.", *own.notes]))
    tables += _profiles(suite.name, profiles)
    tables += _reported(suite, pd.concat([frame, profiles]) if len(profiles) else frame)
    return _with_own_names(tables)


def _with_own_names(tables: list[Table]) -> list[Table]:
    """Number the tables whose name another has: those of further protocols."""
    seen: dict[str, int] = {}
    named = []
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        number = f"-{seen[table.name]}" if seen[table.name] > 1 else ""
        named.append(replace(table, name=table.name + number))
    return named


def _evaluation_order(suite: Suite) -> list[str]:
    """List evaluations, those of reported splits first."""
    reported = [k for k, e in suite.scored.items() if e.split in suite.splits.report]
    return [*reported, *(k for k in suite.scored if k not in reported)]


def _protocols(
    merged: pd.DataFrame, evaluation: str
) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    """Split the rows of an evaluation by protocol: scores of two are not comparable."""
    rows = merged[merged["evaluation"] == evaluation]
    for protocol, group in rows.groupby("protocol", sort=False):
        yield json.loads(str(protocol)), group


def _caption(protocol: dict[str, Any]) -> str:
    limit = f", limited to {protocol['limit']}" if protocol["limit"] is not None else ""
    at = "the masks' own resolution" if protocol["score_at"] == "stored" else "the input's size"
    method = "" if protocol["method"] == "whole" else f"{protocol['method']}, "
    rule = "" if protocol["checkpoint"] == "last" else f", checkpoint: {protocol['checkpoint']}"
    return (
        f"{protocol['dataset']}, {protocol['split']}{limit}, input {protocol['size']}, "
        f"{method}scored at {at}{rule}"
    )


def _summary(
    name: str, protocol: dict[str, Any], rows: pd.DataFrame, failed: pd.DataFrame
) -> Table:
    first = rows.iloc[0]
    floor: list[Cell] = [f"(always {first['most_frequent']})"]
    floor += [
        replace(_figure(first, f"floor/{c}", c), spread=math.nan) if c in SCORES else EMPTY
        for c in SUMMARY
    ]  # of the data alone: the same for every seed
    caption = _caption(protocol)
    table = _plain_table("summary", f"{name}-summary", caption, SUMMARY, rows, failed)
    return replace(table, rows=[*table.rows, floor])


def _complexity(
    name: str, dataset: str, merged: pd.DataFrame, evaluation: str, failed: pd.DataFrame
) -> Table:
    rows = merged[merged["evaluation"] == evaluation]
    sizes = ", ".join(dict.fromkeys(rows["macs_size"]))
    limits = [json.loads(protocol)["limit"] for protocol in rows["protocol"]]
    limit = f", limited to {limits[0]}" if limits[0] is not None else ""
    caption = f"Complexity on {dataset}{limit}; MACs of one image of {sizes}"
    table = _plain_table("complexity", f"{name}-complexity", caption, COMPLEXITY, rows, failed)
    notes = [
        f"{row['label']}: {row['num_unreached'] / 1e6:.2f} M of its parameters get no gradient."
        for _, row in rows.iterrows()
        if row["num_unreached"] > 0
    ]
    return replace(table, notes=[*table.notes, *notes])


def _metrics(
    name: str,
    dataset: str,
    suite: Suite,
    merged: pd.DataFrame,
    evaluations: Sequence[str],
    failed: pd.DataFrame,
) -> list[Table]:
    """Lay training beside validation, as papers do; a table for all models of equal protocols."""
    training = [k for k in evaluations if suite.scored[k].split == suite.splits.train]
    groups = [*training, *(k for k in evaluations if k not in training)]
    headers = [Header("Model")]
    headers += [Header(COLUMNS[column].title, key) for key in groups for column in METRICS]
    names = _names(merged)
    tables: dict[tuple[str, ...], list[list[Cell]]] = {}
    for _, here in merged.groupby(["model", "recipe", "numerics"], sort=False):
        by_key = {key: here[here["evaluation"] == key] for key in groups}
        protocols = tuple(str(rows["protocol"].iloc[0]) for rows in by_key.values() if len(rows))
        cells: list[Cell] = [str(names[here.index[0]])]
        for rows in by_key.values():
            cells += [_figure(rows.iloc[0], c, c) if len(rows) else EMPTY for c in METRICS]
        tables.setdefault(protocols, []).append(cells)
    caption = f"Scores on {dataset}: {' and '.join(groups)}"
    failures = _failed_rows(failed, len(headers))
    return [
        Table(
            "metrics",
            f"{name}-metrics",
            caption,
            headers,
            rows + failures,
            [*(f"{_caption(json.loads(p))}." for p in protocols), *_conditions(merged)],
        )
        for protocols, rows in tables.items()
    ]


def _per_class(
    name: str, protocol: dict[str, Any], rows: pd.DataFrame, failed: pd.DataFrame
) -> Table:
    classes = [
        str(c) for c in rows.columns if str(c).startswith("iou/") and not str(c).endswith("/std")
    ]
    classes = [c for c in classes if rows[c].notna().any() or len(classes) <= MOST_CLASS_COLUMNS]
    titles = [c.removeprefix("iou/") for c in classes]
    table_name, caption = f"{name}-per-class", f"IoU (%) of each class: {_caption(protocol)}"
    names = _names(rows)
    cells = [[_figure(row, c, "miou") for c in [*classes, "miou"]] for _, row in rows.iterrows()]
    notes = _conditions(rows)
    if len(classes) <= MOST_CLASS_COLUMNS:
        headers = [Header("Model"), *map(Header, titles), Header("mean")]
        body: list[list[Cell]] = [[n, *c] for n, c in zip(names, cells, strict=True)]
        body += _failed_rows(failed, len(headers))
        return Table("per_class", table_name, caption, headers, body, notes)
    headers = [Header("Class"), *map(Header, names)]
    body = [[t, *(c[i] for c in cells)] for i, t in enumerate([*titles, "mean"])]
    notes += [f"{name}: {reason}" for name, reason in _reasons(failed)]
    return Table("per_class", table_name, caption, headers, body, notes)


def _plain_table(
    kind: str,
    name: str,
    caption: str,
    columns: Sequence[str],
    rows: pd.DataFrame,
    failed: pd.DataFrame,
) -> Table:
    headers = [Header("Model"), *(Header(COLUMNS[column].title) for column in columns)]
    body: list[list[Cell]] = [
        [row_name, *(_figure(row, column, column) for column in columns)]
        for row_name, (_, row) in zip(_names(rows), rows.iterrows(), strict=True)
    ]
    body += _failed_rows(failed, len(headers))
    notes = _conditions(rows)
    if not OF_TIME.isdisjoint(columns):
        notes += _times(rows)
    return Table(kind, name, caption, headers, body, notes)


def _figure(row: "pd.Series[Any]", key: str, column: str) -> Figure:
    """Return a figure of a row in the unit and digits of a column."""
    shown = COLUMNS[column]
    value, spread = row.get(key), row.get(f"{key}/std")
    several = row.get("num_seeds", 1) > 1
    return Figure(
        math.nan if value is None else float(value) * shown.scale,
        shown.digits,
        float(spread) * shown.scale if several and spread is not None else math.nan,
        DATA_BOUND_MARK
        if column in OF_TIME and row.get("data_wait_share", 0.0) > DATA_BOUND
        else "",
    )


def _names(rows: pd.DataFrame) -> "pd.Series[str]":
    """Name rows by label, and by recipe and numerics where those differ."""
    names = rows["label"].astype(str)
    if rows["recipe"].nunique() > 1:
        repeated = rows.groupby("label")["recipe"].transform("nunique") > 1
        names = names.where(~repeated, names + ", " + rows["recipe"].astype(str))
    if rows["numerics"].nunique() > 1:
        own = rows.groupby(names)["numerics"].transform("nunique") > 1
        how = rows["trained_in"].astype(str) + " on " + rows["machine"].astype(str)
        names = names.where(~own, names + " (" + how + ")")
    return names


def _failed_rows(failed: pd.DataFrame, width: int) -> list[list[Cell]]:
    return [[f"{name}: {reason}", *[EMPTY] * (width - 1)] for name, reason in _reasons(failed)]


def _reasons(failed: pd.DataFrame) -> list[tuple[str, str]]:
    """Return name and reason of each failed case; the reason is as long as a table bears."""
    found = []
    for label, seed, status, reason in zip(
        failed["label"], failed["seed"], failed["status"], failed["reason"], strict=True
    ):
        short = reason if len(reason) <= MOST_OF_A_REASON else f"{reason[:MOST_OF_A_REASON]}…"
        found.append((f"{label}, seed {seed}", f"{status} ({short})"))
    return found


def _conditions(rows: pd.DataFrame) -> list[str]:
    """Say how many seeds, on what and in which precision."""
    notes = []
    for machine, trained_in in (
        rows[["machine", "trained_in"]].drop_duplicates().itertuples(index=False)
    ):
        of = rows[(rows["machine"] == machine) & (rows["trained_in"] == trained_in)]
        who = "" if len(of) == len(rows) else f": {', '.join(dict.fromkeys(of['label']))}"
        notes.append(f"Measured on {machine}, {trained_in}{who}.")
    seeds = sorted(set(rows["num_seeds"]))
    if seeds[-1] > 1:
        notes.append(f"Mean ± standard deviation over {' or '.join(map(str, seeds))} seeds.")
    halved = rows[rows["micro_batch"] < rows["asked_micro_batch"]]
    for label, at_once, batch in halved[["label", "micro_batch", "batch_size"]].to_numpy():
        notes.append(
            f"{label}: for lack of memory {at_once:.0f} images of a batch of {batch:.0f} were "
            "computed at once; BatchNorm saw no more."
        )
    if (rows["epochs"] == 0).any():
        who = ", ".join(dict.fromkeys(rows["label"][rows["epochs"] == 0]))
        notes.append(f"Not trained here, scored with the weights given: {who}.")
    return notes


def _times(rows: pd.DataFrame) -> list[str]:
    """Say which times are missing, and which are not the network's."""
    notes = []
    shared, untimed = rows["num_sharing"] > 1, rows["epoch_s"].isna() & (rows["epochs"] > 0)
    if shared.any():
        who = ", ".join(dict.fromkeys(rows["label"][shared]))
        notes.append(f"No times of cases that shared the machine with others: {who}.")
    if (untimed & ~shared).any():
        notes.append("No time per epoch where only one was trained: the first is a warm-up.")
    bound = rows[rows["data_wait_share"] > DATA_BOUND]
    if len(bound):
        who = ", ".join(
            f"{label} {100 * share:.0f} %"
            for label, share in zip(bound["label"], bound["data_wait_share"], strict=True)
        )
        notes.append(
            f"{DATA_BOUND_MARK} Data-bound: training waited for images more than "
            f"{100 * DATA_BOUND:.0f} % of the time ({who}), which is not the network's."
        )
    return notes


def _only_failed(name: str, dataset: str, failed: pd.DataFrame) -> Table:
    rows: list[list[Cell]] = [[n, reason] for n, reason in _reasons(failed)]
    headers = [Header("Model"), Header("Outcome")]
    return Table("summary", f"{name}-summary", f"{dataset}: no case finished", headers, rows)


def _ordered(rows: pd.DataFrame, order: str) -> pd.DataFrame:
    if order == "suite":
        return rows
    return rows.sort_values(order, ascending=COLUMNS[order].better != "higher", kind="stable")


def _profiles(name: str, rows: pd.DataFrame) -> list[Table]:
    """Lay counts and latencies of networks that need no training side by side."""
    if not len(rows):
        return []
    headers = [Header("Model"), Header("K"), *PROFILE.values(), Header("timed at")]
    body: list[list[Cell]] = [
        [
            str(row["label"]),
            str(row["num_classes"]),
            *(_figure(row, column, column) for column in PROFILE),
            str(row["timed_size"]),
        ]
        for _, row in rows.iterrows()
    ]
    sizes = ", ".join(dict.fromkeys(rows["macs_size"]))
    notes = ["K: classes. No grad.: parameters that training never reaches."]
    notes += [
        f"Latency and img/s of single images, from uint8 to logits, on {machine}, {precision}."
        for machine, precision in rows[["machine", "precision"]].drop_duplicates().to_numpy()
    ]
    caption = f"Complexity without training; MACs of one image of {sizes}"
    return [Table("profile", f"{name}-profile", caption, headers, body, notes)]


def _reported(suite: Suite, frame: pd.DataFrame) -> list[Table]:
    """Set published figures beside ours, where the suite has any."""
    if not suite.reported:
        return []
    rows: list[list[Cell]] = []
    reasons: list[str] = []
    for item in suite.reported:
        column = COLUMNS[item.metric]
        ours = frame[[fnmatchcase(str(name), item.case) for name in frame["case"]]]
        if column.of == "evaluation":
            ours = ours[ours["split"] == item.split]
            ours = ours[ours["protocol"] == ours["protocol"].iloc[0]] if len(ours) else ours
        else:
            ours = ours[ours[item.metric].notna()].drop_duplicates("folder")
        value = float(ours[item.metric].astype(float).mean()) if len(ours) else math.nan
        figures = (item.value, value, value - item.value)
        if item.not_comparable and item.not_comparable not in reasons:
            reasons.append(item.not_comparable)
        mark = str(reasons.index(item.not_comparable) + 1) if item.not_comparable else ""
        rows.append(
            [
                ", ".join(dict.fromkeys(map(str, ours["label"]))) or item.case,
                f"{item.split or ''} {column.title}".strip(),
                *(Figure(figure * column.scale, column.digits) for figure in figures),
                item.source,
                mark,
            ]
        )
    titles = ("Model", "Figure", "Reported", "Ours", "Difference", "Source", "Note")
    headers = [Header(title) for title in titles]
    notes = [f"{number}: {reason}." for number, reason in enumerate(reasons, 1)]
    caption = "Reported figures beside ours"
    return [Table("reported", f"{suite.name}-reported", caption, headers, rows, notes)]
