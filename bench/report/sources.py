"""Where reports find records: suites and folders, several of one name merged."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bench.case import expand
from bench.columns import SCORES
from bench.errors import Faults, UserError
from bench.frame import folders_with, load, load_profiles
from bench.record import Resolved, read_resolved, results_folder
from bench.suite_file import load as load_suite

MOST_NAMES = 8  # of cases in a message
Prefer = Literal["newest"]


@dataclass(frozen=True)
class Source:
    """A suite and the folders that hold records of it."""

    title: str
    folders: tuple[Path, ...]
    resolved: Resolved


def find(targets: Sequence[Path], out: Path, settings: Sequence[str]) -> list[Source]:
    """Find what to report on; folders of one name are one suite's.

    Raises:
        UserError: where a target is neither a suite nor a folder.
    """
    found: dict[str, Source] = {}
    for target in targets or [out]:
        for folder, resolved in _find(target, out, settings):
            before = found.get(folder.name)
            if before is None:
                found[folder.name] = Source(folder.name, (folder,), resolved)
            elif folder.resolve() not in {one.resolve() for one in before.folders}:
                merged = _merge(before.resolved, resolved)
                found[folder.name] = Source(folder.name, (*before.folders, folder), merged)
    return list(found.values())


def _find(target: Path, out: Path, settings: Sequence[str]) -> Iterator[tuple[Path, Resolved]]:
    if target.suffix in (".yaml", ".yml"):
        file = load_suite(target, settings)
        try:
            cases = expand(file.suite)
        except Faults as error:
            raise file.error(error.faults) from error
        folder = results_folder(out, file.suite, settings)
        yield folder, Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases))
        return
    if settings:
        raise UserError("--set and --limit go with a suite file, not with a folder of results.")
    if not target.is_dir() and target != out:
        raise UserError(f"{target} is neither a suite (.yaml) nor a folder with results.")
    for folder in folders_with("suite.json", target):
        try:
            resolved = read_resolved(folder)
        except UserError as error:
            warnings.warn(f"Passed over: {error}", stacklevel=2)
            continue
        if resolved is not None:
            yield folder, resolved


def _merge(one: Resolved, other: Resolved) -> Resolved:
    """Add the cases of another place; the rest of the suite is the first's."""
    known = {case.id for case in one.cases}
    added = [case for case in other.cases if case.id not in known]
    return one.model_copy(update={"cases": (*one.cases, *added)})


@dataclass(frozen=True)
class Records:
    """The records of a suite's cases, in its order, and what to know of them."""

    frame: pd.DataFrame
    profiles: pd.DataFrame
    notes: list[str]


def read(source: Source, prefer: Prefer | None) -> Records | None:
    """Read what lies in a suite's folders; None where that is nothing.

    Raises:
        UserError: where two folders have one case with other scores, and nothing is preferred.
    """
    folders = [folder for folder in source.folders if folder.is_dir()]
    frames = [load(folder) for folder in folders]
    profiles = [load_profiles(folder) for folder in folders]
    if all(one.empty for one in [*frames, *profiles]):
        return None
    frame, notes = _each_once([one for one in frames if len(one)], prefer)
    frame["suite"] = source.resolved.suite.name
    profiled = pd.concat(profiles, ignore_index=True).drop_duplicates("id", keep="last")
    ids = [case.id for case in source.resolved.cases]
    here = _in_order(frame, ids)
    done = set(here["id"])
    waiting = [case.name for case in source.resolved.cases if case.id not in done]
    if waiting and len(here):
        notes.append(f"{len(waiting)} of {len(ids)} cases have no record: {_some(waiting)}.")
    others = frame.loc[~frame["id"].isin(ids), "id"].nunique()
    if others:
        where = ", ".join(map(str, folders))
        notes.append(f"{others} other records lie in {where}, of this suite as it was.")
    profiled = _in_order(profiled, ids)
    return Records(_with_latency(here, profiled), profiled, notes)


def _each_once(frames: list[pd.DataFrame], prefer: Prefer | None) -> tuple[pd.DataFrame, list[str]]:
    """Put the rows of several places together, each case from one place."""
    if len(frames) < 2:
        return (frames[0] if frames else load()), []
    everything = pd.concat(frames, ignore_index=True)
    dropped: list[str] = []
    conflicts, newer = [], []
    for _, rows in everything.groupby("id", sort=False):
        places = list(rows.groupby("folder", sort=False))
        if len(places) == 1:
            continue
        finished = [place for place in places if (place[1]["status"] == "ok").all()] or places
        kept = finished[0]
        if not all(_agree(kept[1], other[1]) for other in finished[1:]):
            name = str(rows["case"].iloc[0])
            conflicts.append(name)
            newer.append(name)
            kept = max(finished, key=lambda place: str(place[1]["finished"].iloc[0]))
        dropped += [str(folder) for folder, _ in places if folder != kept[0]]
    if conflicts and prefer is None:
        raise UserError(
            f"{len(conflicts)} cases have other scores in one folder than in another: "
            f"{_some(conflicts)}. Give --prefer newest, or leave a folder out."
        )
    notes = [f"Of several records the newest was taken: {_some(newer)}."] if newer else []
    return everything[~everything["folder"].isin(dropped)].reset_index(drop=True), notes


def _agree(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Say whether two records of a case have the same outcome and, where both have them, scores."""
    if set(one["status"]) != set(other["status"]):
        return False
    both = one.merge(other, on=["evaluation", "protocol"], suffixes=("", "/other"))
    return all(
        (
            both[name].eq(both[f"{name}/other"]) | both[name].isna() & both[f"{name}/other"].isna()
        ).all()
        for name in SCORES
    )


def _in_order(frame: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Choose the rows of some cases, in their order."""
    place = {one: number for number, one in enumerate(ids)}
    here = frame[frame["id"].isin(place)] if len(frame) else frame
    return here.sort_values("id", key=lambda column: column.map(place), kind="stable")


def _with_latency(frame: pd.DataFrame, profiles: pd.DataFrame) -> pd.DataFrame:
    """Add the latencies that were measured of the same case on the same machine."""
    if not (len(frame) and len(profiles)):
        return frame
    timed: Any = profiles.set_index(["id", "machine"])
    keys = pd.MultiIndex.from_frame(frame[["id", "machine"]])
    columns = ["latency_p50_ms", "latency_p95_ms", "inference_images_per_s"]
    return frame.assign(**{name: timed[name].reindex(keys).to_numpy() for name in columns})


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:MOST_NAMES]) + (", …" if len(listed) > MOST_NAMES else "")
