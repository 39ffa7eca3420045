"""Describe how settings, numerics and software differ between two sides."""

import json
from collections.abc import Mapping
from typing import Any

from bench.compare.snapshot import CaseSnapshot, Snapshot

MOST_OF_A_VERSION = 12  # characters, for example of a commit


def asked(base: CaseSnapshot, new: CaseSnapshot) -> str:
    """Describe how the settings of a case differ; empty if they do not."""
    ours, theirs = ({k: v for k, v in one.asked.items() if k != "source"} for one in (base, new))
    differing = [changed(ours, theirs)]
    if base.asked.get("source") != new.asked.get("source"):
        differing.append("code of the network")
    return ", ".join(filter(None, differing))


def changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """List the settings that differ."""
    one, other = _flat(ours), _flat(theirs)
    return ", ".join(
        f"{key} {one.get(key, 'default')} → {other.get(key, 'default')}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    )


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[str, str]:
    """Write nested settings as {"recipe.epochs": "6"}."""
    if isinstance(value, Mapping) and value:
        flat: dict[str, str] = {}
        for key, part in value.items():
            flat |= _flat(part, (*path, key))
        return flat
    return {".".join(path): value if isinstance(value, str) else json.dumps(value)}


def software(base: Snapshot, new: Snapshot) -> tuple[str, str] | None:
    """Return the versions of each side that differ; None if none do, or a side has none."""
    ours, theirs = _versions(base), _versions(new)
    differing = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if not (differing and ours and theirs):
        return None
    one, other = (
        ", ".join(f"{key} {side.get(key, 'none')}" for key in differing) for side in (ours, theirs)
    )
    return one, other


def _versions(side: Snapshot) -> dict[str, str]:
    """Return all versions that the cases of a side were made with, by package."""
    found: dict[str, set[str]] = {}
    for case in side.cases.values():
        for key, version in case.software.items():
            found.setdefault(key, set()).add(str(version)[:MOST_OF_A_VERSION])
    return {key: " and ".join(sorted(versions)) for key, versions in found.items()}
