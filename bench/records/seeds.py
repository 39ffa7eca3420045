"""Mean and standard deviation over the seeds of a model."""

import pandas as pd

from bench.records.frame import OF_A_MACHINE
from bench.suite.columns import COLUMNS, SCORES

ONE_MODEL = ["suite", "dataset", "model", "recipe", "label", "variant", "numerics"]
LARGEST = ("num_sharing", "most_seconds", "most_reference_s")
SMALLEST = ("least_seconds", "least_reference_s")
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
    shared = together["num_sharing"].transform("max") > 1  # a time of some seeds is not theirs
    numbers.loc[mixed | shared, list(OF_A_MACHINE)] = float("nan")
    groups = numbers.groupby([frame[key] for key in keys], sort=False, dropna=False)
    group = groups.ngroup()
    first = ~group.duplicated()
    over = {
        "num_seeds": group.map(group.value_counts()),
        "num_machines": machines.transform("nunique"),
        "folders": group.map(frame["folder"].groupby(group).agg(tuple)),
        **{name: together[name].transform("max") for name in LARGEST},
        **{name: together[name].transform("min") for name in SMALLEST},
    }
    if mixed.any():
        over["machine"] = machines.transform(lambda m: " and ".join(sorted(set(m.dropna()))))
    parts = [groups.transform("mean"), groups.transform("std").add_suffix("/std")]
    parts.append(pd.DataFrame(over, index=frame.index))
    changed = {*figures, *over}
    kept = frame[[name for name in frame if name not in changed]]
    # Joined at once: a column at a time takes long for many classes.
    wide: pd.DataFrame = pd.concat([kept, *parts], axis=1).loc[first].reset_index(drop=True)
    return wide
