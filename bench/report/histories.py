"""What trainings left after each epoch, seeds of one model together."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError
from bench.report.rows import names

SERIES = ("loss", "select_loss", "train_miou", "select_miou")  # columns of history.csv


@dataclass(frozen=True)
class History:
    """One training: a value an epoch under each name of SERIES, NaN where not measured.

    Losses are as trained and validated, mIoU is 0..1.
    """

    label: str
    epochs: tuple[int, ...]
    series: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Spread:
    """One quantity over seeds, a value an epoch; NaN where a seed has none."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """A model's trainings, one or several seeds of it, as they are drawn."""

    label: str
    num_seeds: int
    epochs: tuple[int, ...]
    series: Mapping[str, Spread]


def read_history(file: Path, label: str) -> History:
    """Read what a training wrote after each epoch.

    Columns that an older version did not write, empty cells and infinities are NaN.

    Raises:
        UserError: where the file is not there, or no such CSV.
    """
    try:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror or error}.") from error
    except (ValueError, csv.Error) as error:
        raise _damaged(file, f"it is no CSV in UTF-8 ({error})") from error
    columns, *rows = [row for row in rows if row] or [[]]
    if "epoch" not in columns:
        raise _damaged(file, "it has no column epoch")
    if not rows:
        raise _damaged(file, "it holds no epoch")
    epochs: list[int] = []
    series: dict[str, list[float]] = {name: [] for name in SERIES}
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise _damaged(file, f"row {number} has {len(row)} cells, not {len(columns)}")
        cells = dict(zip(columns, row, strict=True))
        if not _is_count(cells["epoch"]) or int(cells["epoch"]) <= max(epochs, default=0):
            raise _damaged(file, f"row {number} has the epoch {cells['epoch'][:20]!r}")
        epochs.append(int(cells["epoch"]))
        for name, values in series.items():
            try:
                value = float(cells.get(name) or math.nan)
            except ValueError as error:
                text = cells[name][:20]
                raise _damaged(file, f"row {number} has the {name} {text!r}") from error
            values.append(value if math.isfinite(value) else math.nan)
    return History(label, tuple(epochs), {name: tuple(v) for name, v in series.items()})


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _damaged(file: Path, what: str) -> UserError:
    return UserError(
        f"{file} is not the history of a training: {what}. Put back the file that the training "
        "wrote, or remove it to go without its curves."
    )


def mean_of(histories: Sequence[History]) -> Curve:
    """Average the seeds of one model, epoch by epoch; the first one's label is the curve's.

    Epochs that a seed lacks, having stopped early, are left out.
    """
    assert histories
    epochs = sorted(set.intersection(*(set(history.epochs) for history in histories)))
    series = {}
    for name in SERIES:
        seeds = [dict(zip(h.epochs, h.series[name], strict=True)) for h in histories]
        values = np.array([[seed[epoch] for epoch in epochs] for seed in seeds])
        series[name] = Spread(
            mean=tuple(values.mean(axis=0).tolist()),
            low=tuple(values.min(axis=0).tolist()),  # NaN where one of them is
            high=tuple(values.max(axis=0).tolist()),
        )
    return Curve(histories[0].label, len(histories), tuple(epochs), series)


def curves_of(rows: pd.DataFrame) -> tuple[list[Curve], list[str]]:
    """Read a curve for each model, its seeds together, and say what cannot be read.

    Args:
        rows: of `bench.frame.load` with scores, and with `entry`.
    """
    cases = rows.drop_duplicates("folder")
    named = names(cases)
    curves, unread = [], []
    for label, here in cases.groupby(named, sort=False):
        read: list[History] = []
        for folder in here["folder"]:
            file = Path(folder) / "history.csv"
            if not file.exists():  # of a case that was not trained
                continue
            try:
                read.append(read_history(file, str(label)))
            except UserError as error:
                unread.append(str(error))
        if read:
            curves.append(mean_of(read))
    return curves, unread
