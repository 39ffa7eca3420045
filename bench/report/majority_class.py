"""The majority-class row: the scores of always predicting the most frequent class."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.evaluation.conventions import by_conventions
from bench.evaluation.scores import class_iou, constant_prediction, scores
from bench.records.counts import load_counts
from bench.report.rows import Row
from bench.report.table import EMPTY, Cell, Figure, Text
from bench.suite.columns import COLUMNS, IOU


def majority_class_row(row: Row, columns: Sequence[str]) -> list[Cell]:
    """Return the cells of the majority-class row, the same for every model of a protocol.

    Args:
        row: the row of any model; scores missing from its record are computed from its counts.
    """
    values = _of_record(row)
    if any(name not in values for name in columns):
        values = {**_of_counts(row), **values}
    cells: list[Cell] = [Text(f"(majority class: {row['most_frequent']})")]
    for name in columns:
        known = name in values and not np.isnan(values[name])
        shown = COLUMNS.get(name, COLUMNS["miou"])
        cells.append(Figure(values[name] * shown.scale, shown.digits) if known else Text(EMPTY))
    return cells


def _of_record(row: Row) -> Mapping[str, float]:
    prefix = "floor/"
    stored = {str(key).removeprefix(prefix): row[key] for key in row if str(key).startswith(prefix)}
    return {name: float(value) for name, value in stored.items() if not name.endswith("/std")}


def _of_counts(row: Row) -> Mapping[str, float]:
    counts = load_counts(row["folders"][0], row["evaluation"])
    if counts is None:
        return {}
    _, constant = constant_prediction(counts.per_image)
    names = [f"{IOU}{name}" for name in row["class_names"]]
    conventions = by_conventions(constant, row["class_names"], int(row["batch_size"]))
    iou = dict(zip(names, class_iou(constant).tolist(), strict=True))
    return scores(constant) | conventions | iou
