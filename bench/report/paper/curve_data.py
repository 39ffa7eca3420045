"""The histories of trainings, averaged over the seeds of a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError
from bench.records.case_folder import CaseFolder
from bench.records.history import read_history
from bench.report.rows import names

SERIES = ("loss", "select_loss", "train_miou", "select_miou")  # columns of history.csv


@dataclass(frozen=True)
class Training:
    """One training: one value per epoch for each name of SERIES, NaN if it was not measured.

    Losses are as trained and validated; mIoU is in 0..1.
    """

    label: str
    epochs: tuple[int, ...]
    series: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Spread:
    """One quantity over seeds, one value per epoch; NaN if any seed has none."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """The trainings of a model, averaged over one or more seeds, as drawn."""

    label: str
    num_seeds: int
    epochs: tuple[int, ...]
    series: Mapping[str, Spread]


def read_training(file: Path, label: str) -> Training | None:
    """Read the history of a training; None if the case was not trained.

    Raises:
        UserError: if the file is damaged.
    """
    rows = read_history(file)
    if not rows:
        return None
    series = {name: tuple(row.get(name, math.nan) for row in rows) for name in SERIES}
    return Training(label, tuple(int(row["epoch"]) for row in rows), series)


def mean_of(trainings: Sequence[Training]) -> Curve:
    """Average the seeds of one model, epoch by epoch; the curve gets the label of the first.

    Epochs that any seed lacks, because it stopped early, are left out.
    """
    assert trainings
    epochs = sorted(set.intersection(*(set(one.epochs) for one in trainings)))
    series = {}
    for name in SERIES:
        seeds = [dict(zip(one.epochs, one.series[name], strict=True)) for one in trainings]
        values = np.array([[seed[epoch] for epoch in epochs] for seed in seeds])
        series[name] = Spread(
            mean=tuple(values.mean(axis=0).tolist()),
            low=tuple(values.min(axis=0).tolist()),  # NaN if one of them is NaN
            high=tuple(values.max(axis=0).tolist()),
        )
    return Curve(trainings[0].label, len(trainings), tuple(epochs), series)


def curves_of(rows: pd.DataFrame) -> tuple[list[Curve], list[str]]:
    """Read one curve per model, averaged over its seeds, and list what cannot be read.

    Args:
        rows: of `bench.records.frame.load`, with scores and with the column `entry`.
    """
    cases = rows.drop_duplicates("folder")
    named = names(cases)
    curves, unread = [], []
    for label, here in cases.groupby(named, sort=False):
        read: list[Training] = []
        for folder in here["folder"]:
            try:
                training = read_training(CaseFolder(Path(folder)).history, str(label))
            except UserError as error:
                unread.append(str(error))
                continue
            read += [training] if training is not None else []
        if read:
            curves.append(mean_of(read))
    return curves, unread
