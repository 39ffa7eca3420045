"""The commands `show` and `rm`: records and their folders."""

import fnmatch
import shlex
import shutil
from pathlib import Path

from bench.cli.commands.list import suites
from bench.errors import UserError
from bench.machine.lease import Watch, await_signs
from bench.machine.numerics import read_numerics
from bench.records.case_folder import CaseFolder, Held
from bench.records.record import (
    APART,
    Record,
    Resolved,
    read_evaluations,
    read_record,
    read_resolved,
)
from bench.suite import yaml_file
from bench.suite.catalog import is_suite

CASES_SHOWN = 20


def shown(name: str, results: Path) -> str:
    """Write a case's record in full, with the command that repeats it.

    Args:
        name: a folder, or a glob on the names of case folders below `results`.
    """
    folder = Path(name)
    if not CaseFolder(folder).case.is_file():
        if is_suite(name):
            raise UserError(f"{name} is a suite; name a case. bench report {name} shows them all.")
        found = [f for f in _case_folders(results) if fnmatch.fnmatchcase(f.name, f"{name}*")]
        if not found:
            raise UserError(f"No case matches {name!r} in {results}.")
        if len(found) > 1:
            names = "".join(f"\n  {f}" for f in found[:CASES_SHOWN])
            raise UserError(f"{len(found)} cases match {name!r} in {results}; name one.{names}")
        [folder] = found
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder} has no record: {CaseFolder(folder).unfinished}.")
    outcome = record.status if record.reason is None else f"{record.status}: {record.reason}"
    parts = [f"{folder}", outcome, *record.notes, "", record.model_dump_json(indent=2)]
    parts += [evaluation.model_dump_json(indent=2) for evaluation in read_evaluations(folder)]
    return "\n".join([*parts, "", *_how_to_repeat(record, folder)])


def _name(file: Path) -> str:
    """Return the name that a suite file gives, or the file's own."""
    try:
        data = yaml_file.read(file).data
    except UserError:
        return file.stem
    return str(data.get("name", file.stem)) if isinstance(data, dict) else file.stem


def _how_to_repeat(record: Record, folder: Path) -> list[str]:
    resolved = read_resolved(folder.parent)
    lines = []
    if resolved is not None and record.case.folder not in _folders(resolved):
        lines.append("Its suite has changed since; its current version makes a different case.")
    name = folder.parent.name.partition("@")[0]
    suite = next((key for key, file in suites().items() if _name(file) == name), f"{name}.yaml")
    settings = resolved.settings if resolved is not None else ()
    words = ["python", "-m", "bench", "run", suite, "--filter", record.case.name]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--device", read_numerics(record.numerics).device or "auto"]
    lines.append("To repeat it, add the --root of its data and another --out to")
    lines.append(f"  {shlex.join(words)}")
    return lines


def remove(
    results: Path, pattern: str, *, stale: bool, failed: bool, dry_run: bool
) -> tuple[list[Path], list[Path]]:
    """Remove the folders of cases; a case that is running stays.

    Args:
        pattern: glob on case names; empty for all.
        stale: only those that their suite no longer has.
        failed: only those that failed.
        dry_run: remove nothing.

    Returns:
        The removed folders, and those of running cases.

    Raises:
        UserError: if nothing says which cases.
    """
    if not (pattern or stale or failed):
        raise UserError("Say which cases: a glob on their names, --stale or --failed.")
    if is_suite(pattern):
        raise UserError(f"{pattern} is a suite; give a glob on the names of its cases, or *.")
    chosen = []
    for folder in _case_folders(results):
        name = folder.name.rpartition("__")[0]
        if pattern and not fnmatch.fnmatchcase(name, pattern):
            continue
        if stale and not _is_stale(folder):
            continue
        if failed and not _has_failed(folder):
            continue
        chosen.append(folder)
    watches = {folder: Watch(CaseFolder(folder).lease) for folder in chosen}
    await_signs(watches.values())
    removed, running = [], []
    for folder, watch in watches.items():
        try:
            if dry_run and not watch.is_free():
                raise Held(None)
            if not dry_run:
                with CaseFolder(folder).hold(watch):
                    shutil.rmtree(folder)
        except Held:
            running.append(folder)
        else:
            removed.append(folder)
    return removed, running


def _is_stale(folder: Path) -> bool:
    resolved = read_resolved(folder.parent)
    return resolved is not None and folder.name not in _folders(resolved)


def _folders(resolved: Resolved) -> set[str]:
    """Return the names of the folders that the cases of a suite have now."""
    return {case.folder for case in resolved.cases}


def _has_failed(folder: Path) -> bool:
    try:
        record = read_record(folder)
    except UserError:
        return True
    return record is not None and record.status != "ok"


def _case_folders(results: Path) -> list[Path]:
    if not results.is_dir():
        raise UserError(f"There is no folder {results}.")
    return [
        file.parent
        for file in sorted(results.rglob("case.json"))
        if file.relative_to(results).parts[0] not in APART
    ]
