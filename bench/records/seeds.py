"""Mean and standard deviation over the seeds of a model."""

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.suite.columns import COLUMNS

ONE_MODEL = ["suite", "dataset", "model", "recipe", "label", "variant", "numerics"]
ONE_SCORE = ["evaluation", "protocol", "scores_version"]


def entries(frame: pd.DataFrame) -> "pd.Series[int]":
    """Number the models: rows that differ only in seed and evaluation have the same number."""
    return frame.groupby(ONE_MODEL, sort=False, dropna=False).ngroup()


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Merge rows that differ only in their seed into mean, `NAME/std` and number of seeds.

    Rows with different numerics or settings are not merged. `entry` is the number of the model
    from `entries`; `folders` lists the folders of its seeds. The standard deviation is of the
    sample (n - 1). Times and memory are left out if the seeds ran on several machines.
    """
    if "entry" not in frame:
        frame = frame.assign(entry=entries(frame))
    keys = [*ONE_MODEL, *ONE_SCORE]
    figures = [*COLUMNS, *(str(n) for n in frame if str(n).startswith(("iou/", "floor/")))]
    numbers = frame[figures].apply(pd.to_numeric)
    together = frame.groupby(keys, sort=False, dropna=False)
    machines = together["machine"]
    mixed = machines.transform("nunique") > 1
    numbers.loc[mixed, list(OF_A_MACHINE)] = float("nan")
    groups = numbers.groupby([frame[key] for key in keys], sort=False, dropna=False)
    group = groups.ngroup()
    first = ~group.duplicated()
    merged: pd.DataFrame = frame.loc[first].copy()
    merged[figures] = groups.transform("mean").loc[first]
    merged["num_seeds"] = group.map(group.value_counts()).loc[first]
    merged["num_sharing"] = together["num_sharing"].transform("max").loc[first]
    merged["folders"] = group.map(frame["folder"].groupby(group).agg(tuple)).loc[first]
    if mixed.any():
        named = machines.transform(lambda names: " and ".join(sorted(set(names.dropna()))))
        merged["machine"] = named.loc[first]
    spread = groups.transform("std").loc[first].add_suffix("/std")
    wide: pd.DataFrame = pd.concat([merged, spread], axis=1).reset_index(drop=True)
    return wide
