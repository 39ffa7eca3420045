"""Where reports find records: suites and folders; folders of the same name are merged."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bench.errors import UserError
from bench.records.case_folder import results_folder
from bench.records.frame import folders_with, load, load_profiles
from bench.records.record import Resolved, read_resolved
from bench.records.seeds import entries
from bench.suite.catalog import is_suite
from bench.suite.columns import SCORES
from bench.suite.load import load as load_suite
from bench.text import listed, plural

Prefer = Literal["newest"]
HOW = ("memory_format", "compile", "precision")  # a network is profiled


@dataclass(frozen=True)
class Source:
    """A suite and the folders that hold records of it."""

    title: str
    folders: tuple[Path, ...]
    resolved: Resolved


def find(targets: Sequence[Path], out: Path, settings: Sequence[str]) -> list[Source]:
    """Find what to report on; folders of the same name belong to one suite.

    Raises:
        UserError: if a target is neither a suite nor a folder.
    """
    found: list[Source] = []
    for target in targets or [out]:
        before = list(found)  # folders of one target are never merged with each other
        for folder, resolved in _find(target, out, settings):
            same = next((one for one in before if one.title == folder.name), None)
            if same is None:
                found.append(Source(folder.name, (folder,), resolved))
            elif folder.resolve() not in {one.resolve() for one in same.folders}:
                merged = _merge(same.resolved, resolved)
                place = found.index(same)
                found[place] = Source(folder.name, (*same.folders, folder), merged)
                before[before.index(same)] = found[place]
    return found


def _find(target: Path, out: Path, settings: Sequence[str]) -> Iterator[tuple[Path, Resolved]]:
    if is_suite(target):
        file = load_suite(target, settings)
        cases = file.cases()
        for model in file.suite.models.values():
            if model.weights is not None and model.weights.is_missing:
                warnings.warn(
                    f"{model.weights.missing_message} The ids of its cases depend on that file: "
                    "give the results folder instead of the suite.",
                    stacklevel=2,
                )
        folder = results_folder(out, file.suite, settings)
        yield folder, Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases))
        return
    if settings:
        raise UserError("--set and --limit go with a suite file, not with a folder of results.")
    if (target / "record.json").is_file():
        raise UserError(f"{target} is the folder of one case; give that of its suite, its parent.")
    if not target.is_dir() and target != out:
        raise UserError(f"{target} is neither a suite (.yaml) nor a folder with results.")
    for folder in folders_with("suite.json", target):
        try:
            resolved = read_resolved(folder)
        except UserError as error:
            warnings.warn(f"Skipped: {error}", stacklevel=2)
            continue
        if resolved is not None:
            yield folder, resolved


def _merge(one: Resolved, other: Resolved) -> Resolved:
    """Add the cases of another folder; the rest of the suite stays as in the first."""
    known = {case.folder for case in one.cases}
    added = [case for case in other.cases if case.folder not in known]
    return one.model_copy(update={"cases": (*one.cases, *added), "ids": ()})


@dataclass(frozen=True)
class Records:
    """The records of a suite's cases in its order, and notes about them."""

    frame: pd.DataFrame
    profiles: pd.DataFrame
    notes: list[str]


def read(source: Source, prefer: Prefer | None) -> Records | None:
    """Read the records in a suite's folders; None if there are none.

    Raises:
        UserError: if two folders have different scores for a case and no preference is given.
    """
    folders = [folder for folder in source.folders if folder.is_dir()]
    frames = [load(folder) for folder in folders]
    profiles = [load_profiles(folder) for folder in folders]
    if all(one.empty for one in [*frames, *profiles]):
        return None
    frame, notes = _each_once(pd.concat(_with_rows(frames), ignore_index=True), prefer)
    frame["suite"] = source.resolved.suite.name
    profiled = pd.concat(_with_rows(profiles), ignore_index=True)
    if len(profiled):
        once = ["id", "case", "machine", *HOW, "timed_size", "timed_batch"]
        newest = profiled.sort_values("measured", kind="stable")
        profiled = newest.drop_duplicates(once, keep="last")
        # Contiguous and uncompiled first, then fp32 before bf16, then small batches.
        ways, rising = [*HOW, "timed_batch"], [False, True, False, True]
        order = profiled[ways].fillna("").sort_values(ways, ascending=rising, kind="stable")
        profiled = profiled.loc[order.index].reset_index(drop=True)
    asked = [(case.id, case.name) for case in source.resolved.cases]
    there, here = set(_keys(frame)), _in_order(frame, asked)
    waiting = [name for key, name in asked if (key, name) not in there]
    if waiting and len(here):
        notes.append(
            f"{len(waiting)} of {plural(len(asked), 'case')} have not finished and have no record: "
            f"{listed(waiting)}."
        )
    others = len(there - set(asked))
    if others:
        where = ", ".join(map(str, folders))
        notes.append(
            f"{where} also has {plural(others, 'record')} from an earlier version of this suite."
        )
    profiled = _in_order(profiled, asked)
    here = here.assign(entry=entries(here)) if len(here) else here
    return Records(_with_latency(here, profiled), profiled, notes)


def _with_rows(frames: list[pd.DataFrame]) -> list[pd.DataFrame]:
    return [one for one in frames if len(one)] or frames[:1]


def _each_once(frame: pd.DataFrame, prefer: Prefer | None) -> tuple[pd.DataFrame, list[str]]:
    """Keep the rows of each case from one folder only."""
    folders = frame[["id", "case", "folder"]].drop_duplicates() if len(frame) else frame
    if not len(frame) or not folders.duplicated(["id", "case"]).any():
        return frame, []
    dropped: list[str] = []
    conflicts = []
    for (_, name), rows in frame.groupby(["id", "case"], sort=False):
        places = [place for _, place in rows.groupby("folder", sort=False)]
        if len(places) == 1:
            continue
        finished = [place for place in places if (place["status"] == "ok").all()]
        kept = max(finished or places, key=_finished)
        if finished and all(_agree(finished[0], other) for other in finished[1:]):
            kept = max(finished, key=len)  # the one with most evaluations
        elif finished:
            conflicts.append(
                f"{name} ({' and '.join(place['folder'].iloc[0] for place in places)})"
            )
        dropped += [place["folder"].iloc[0] for place in places if place is not kept]
    if conflicts and prefer is None:
        raise UserError(
            f"Folders have different scores for {plural(len(conflicts), 'case')}: "
            f"{listed(conflicts)}. Give --prefer newest, or leave a folder out."
        )
    notes = [f"The newest of several records was used: {listed(conflicts)}."] if conflicts else []
    return frame[~frame["folder"].isin(dropped)].reset_index(drop=True), notes


def _finished(place: pd.DataFrame) -> datetime:
    return datetime.fromisoformat(str(place["finished"].iloc[0]))


def _agree(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether two records of a case agree in every evaluation that both have."""
    both = one.merge(other, on="evaluation", suffixes=("", "/other"))
    return bool((both["protocol"] == both["protocol/other"]).all()) and all(
        np.array_equal(both[name], both[f"{name}/other"], equal_nan=True) for name in SCORES
    )


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the id and the name of each row's case: two cases may share an id."""
    return list(zip(frame["id"], frame["case"], strict=True)) if len(frame) else []


def _in_order(frame: pd.DataFrame, asked: list[tuple[str, str]]) -> pd.DataFrame:
    """Return the rows of some cases, in the order of `asked`."""
    place = {key: number for number, key in enumerate(asked)}
    rows = [(place[key], row) for row, key in enumerate(_keys(frame)) if key in place]
    return frame.iloc[[row for _, row in sorted(rows)]]


def _with_latency(frame: pd.DataFrame, profiles: pd.DataFrame) -> pd.DataFrame:
    """Add latencies of the same case, machine, levers and image size as the MACs."""
    if not (len(frame) and len(profiles)):
        return frame
    profiles = profiles[(profiles["timed_batch"] == 1) & profiles["compile"].isna()]
    columns = ["latency_p50_ms", "latency_p95_ms", "inference_images_per_s"]
    keys = ["id", "case", "machine", "trained_in", "memory_format", "macs_size"]
    timed = profiles.rename(columns={"precision": "trained_in"}).drop(columns="macs_size")
    timed = timed.rename(columns={"timed_size": "macs_size"})[[*keys, *columns]]
    return frame.drop(columns=columns).merge(timed, on=keys, how="left")
