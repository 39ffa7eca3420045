"""Make all tables of a suite."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd

from bench.report.group import EVERYTHING, Choice, Group, evaluation_order, groups
from bench.report.significance import Ranking
from bench.report.table import Table
from bench.report.tables.complexity import complexity
from bench.report.tables.conventions import conventions
from bench.report.tables.failures import only_failed
from bench.report.tables.metrics import metrics
from bench.report.tables.own import own
from bench.report.tables.per_class import per_class
from bench.report.tables.profile import profile
from bench.report.tables.protocol import protocol
from bench.report.tables.reported import reported
from bench.report.tables.summary import summary
from bench.suite.suite import Suite
from bench.suite.tables import USUAL_TABLES

OF_GROUPS: Mapping[str, Callable[[Group], list[Table]]] = {
    "summary": summary,
    "complexity": complexity,
    "metrics": metrics,
    "per_class": per_class,
    "conventions": conventions,
    "protocol": protocol,
}
KINDS = USUAL_TABLES  # a suite can define more


def build_tables(
    suite: Suite,
    frame: pd.DataFrame,
    profiles: pd.DataFrame,
    changes: tuple[str, ...] = (),
    choice: Choice = EVERYTHING,
) -> list[Table]:
    """Make the chosen tables from a suite's records.

    Args:
        frame: rows of `bench.load`, in the order of the tables.
        profiles: rows of `bench.records.frame.load_profiles`, in the same order.
        changes: the settings of --set and --limit.
    """
    wanted = choice.kinds or (*KINDS, *suite.tables)
    found = groups(suite, frame, changes, choice, Ranking())
    tables: list[Table] = []
    for group in found:
        if not group.evaluations:
            tables.append(only_failed(group.stem, group.title, group.failed, changes))
            continue
        for kind, build in OF_GROUPS.items():
            tables += build(group) if kind in wanted else []
        tables += [table for table in own(group) if table.kind in wanted]
    if "profile" in wanted and len(profiles):
        tables += profile(suite.name, profiles, changes)
    if "reported" in wanted and choice.reported and suite.reported:
        rows = [group.rows for group in found if group.evaluations]
        everything = pd.concat([*rows, _as_entries(profiles)], ignore_index=True)
        labels = dict(zip(frame["case"], frame["label"], strict=True)) if len(frame) else {}
        tables += reported(suite, everything, labels, list(evaluation_order(suite)), changes)
    return _with_own_names(tables)


def _as_entries(profiles: pd.DataFrame) -> pd.DataFrame:
    """Give profiles the columns that rows of models have."""
    folders = pd.Series([(one,) for one in profiles.get("folder", ())], profiles.index, object)
    numbers = [-1 - number for number in range(len(profiles))]
    return profiles.assign(evaluation=None, split=None, folders=folders, entry=numbers)


def _with_own_names(tables: list[Table]) -> list[Table]:
    """Number tables with the same name, which differ in their protocol."""
    seen: dict[str, int] = {}
    named = []
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        number = f"-{seen[table.name]}" if seen[table.name] > 1 else ""
        named.append(replace(table, name=table.name + number))
    return named
