"""The training histories of a report's models, seeds together."""

from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.report.curves import Curve, History, mean_of, read_history
from bench.report.rows import names


def curves_of(rows: pd.DataFrame) -> tuple[list[Curve], list[str]]:
    """Read a curve for each model, its seeds together, and say what cannot be read.

    Args:
        rows: of `bench.frame.load`, with scores.
    """
    cases = rows.drop_duplicates("folder")
    several = cases["dataset"].nunique() > 1
    named = names(cases) + (", " + cases["dataset"] if several else "")
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
