"""Mean and standard deviation over the seeds of a model."""

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.suite.columns import COLUMNS, SCORES

ONE_MODEL = ["suite", "dataset", "model", "recipe", "label", "variant", "numerics"]
ONE_SCORE = ["evaluation", "protocol", "scores_version"]


def entries(frame: pd.DataFrame) -> "pd.Series[int]":
    """Number the models: rows that differ only in seed and evaluation have the same number."""
    return frame.groupby(ONE_MODEL, sort=False, dropna=False).ngroup()


def each_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out further seeds of cases without training that all have the same scores.

    They are one network that was scored several times.
    """
    scores = [name for name in frame if name in SCORES or str(name).startswith("iou/")]
    keys = [name for name in (*ONE_MODEL, *ONE_SCORE, *scores) if name in frame]
    again = (frame["epochs"] == 0) & frame.astype({"numerics": str}).duplicated(keys)
    return frame[~again]


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Merge rows that differ only in their seed into mean, `NAME/std` and number of seeds.

    Rows with different numerics or settings are not merged. Cases without training and with equal
    scores count once. `entry` is the number of the model
    from `entries`; `folders` lists the folders of its seeds. The standard deviation is of the
    sample (n - 1). Times and memory are left out if the seeds ran on several machines.
    """
    if "entry" not in frame:
        frame = frame.assign(entry=entries(frame))
    frame = each_once(frame)
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
    for name in ("num_sharing", "most_seconds", "most_reference_s"):
        merged[name] = together[name].transform("max").loc[first]
    for name in ("least_seconds", "least_reference_s"):
        merged[name] = together[name].transform("min").loc[first]
    merged["num_machines"] = machines.transform("nunique").loc[first]
    merged["folders"] = group.map(frame["folder"].groupby(group).agg(tuple)).loc[first]
    if mixed.any():
        named = machines.transform(lambda names: " and ".join(sorted(set(names.dropna()))))
        merged["machine"] = named.loc[first]
    spread = groups.transform("std").loc[first].add_suffix("/std")
    wide: pd.DataFrame = pd.concat([merged, spread], axis=1).reset_index(drop=True)
    return wide
