"""The checks of what a Python caller gives."""

from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any

from bench.errors import UserError

Kinds = type | tuple[type, ...]

KINDS: Mapping[str, tuple[Any, str]] = {  # of `run`'s arguments
    "suite": (
        (str, PathLike, Mapping),
        "a file, the name of a shipped suite or the content of a suite file as a dict",
    ),
    "pattern": ((str, NoneType), 'a glob on case names, such as "*unet*"'),
    "device": (str, 'a name, such as "cuda:1"'),
    "workers": (int, "a whole number"),
    "gpus_per_case": (int, "a whole number"),
    "timeout_s": ((int, float, NoneType), "a number of seconds"),
    "ray_address": ((str, NoneType), 'an address, such as "10.0.0.1:6379"'),
    "loader_workers": ((int, NoneType), "a whole number"),
    "shard": ((str, NoneType), 'a share, such as "2/8"'),
    "on_result": ((Callable, NoneType), "a function of one result"),
}


def require(**arguments: object) -> None:
    """Check the types of some of the arguments in `KINDS`.

    Raises:
        UserError: for the first of another type.
    """
    for name, given in arguments.items():
        kinds, expected = KINDS[name]
        _require(name, given, kinds, expected)


def as_path(name: str, given: object) -> Path:
    """Return a path.

    Raises:
        UserError: if it is something else, such as a list.
    """
    _require(name, given, (str, PathLike), "a path")
    return Path(given)  # type: ignore[arg-type]


def as_roots(roots: Mapping[str, Any] | None) -> dict[str, Path]:
    """Return the folder of each dataset.

    Raises:
        UserError: if they are no mapping to paths.
    """
    require_mapping("roots", roots, '{"camvid": "/data/camvid"}')
    given = roots or {}
    return {name: as_path(f"roots[{name!r}]", given[name]).expanduser() for name in given}


def require_names(name: str, given: object, example: str) -> None:
    """Check that names are in a list.

    Raises:
        UserError: if they are not; the letters of a string would be taken for names.
    """
    _require(
        name,
        given,
        NoneType if isinstance(given, str) else Collection,
        f"a list, such as {example}",
    )


def require_mapping(name: str, given: object, example: str) -> None:
    """Check that an optional argument is a mapping.

    Raises:
        UserError: if it is something else.
    """
    _require(name, given, (Mapping, NoneType), f"a mapping, such as {example}")


def _require(name: str, given: object, kinds: Kinds, expected: str) -> None:
    if not isinstance(given, kinds):
        raise UserError(f"{name} is {expected}, not {given!r}.")
