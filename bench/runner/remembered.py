"""Checks that passed before are remembered, so that a suite that was checked starts at once."""

import hashlib
import json
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.cache_folder import cache_folder
from bench.machine.environment import package_versions
from bench.machine.files import read_json, write_json

CODE = [Path(__file__).parents[2] / package for package in ("bench", "custom_models")]


def recall(kind: str, about: object) -> Any:
    """Return what a check found; None if it has not passed with this code on this machine.

    Args:
        kind: of the check.
        about: all that its result depends on, as JSON.
    """
    return read_json(_file(kind, about))


def remember(kind: str, about: object, found: object) -> None:
    """Remember what a check found, as JSON; None is not remembered."""
    with suppress(UserError):  # a cache that cannot be written remembers nothing
        write_json(_file(kind, about), found, sync=False)


def _file(kind: str, about: object) -> Path:
    text = json.dumps([_code(), platform.node(), kind, about])
    return cache_folder() / "checks" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


@cache
def _code() -> str:
    """Hash the code that checks, and the versions of the packages that it calls."""
    digest = hashlib.sha256(json.dumps(package_versions(), sort_keys=True).encode())
    for folder in CODE:
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
