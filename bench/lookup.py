"""Look up names, with "did you mean", and import users' own `package.module:attribute`."""

import difflib
import importlib
import os
import sys
from collections.abc import Collection, Mapping
from typing import TypeVar

from bench.errors import UserError
from bench.text import listed

T = TypeVar("T")
MOST_KNOWN = 40  # names in a message
USER_CODE_ERRORS = (  # what a user's own code can raise when it is imported or called
    ImportError,
    SyntaxError,
    NameError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    OSError,
)


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """Return the error message for a name that is not in `known`, with the nearest names."""
    lower = {one.lower(): one for one in known}
    near = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    if not known:
        return f"Unknown {kind} {name!r}. Known: none."
    return f"Unknown {kind} {name!r}.{guess} Known: {listed(sorted(known), MOST_KNOWN)}."


def pick(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`.

    Raises:
        UserError: if `name` is not in the table; the message suggests the nearest names.
    """
    if name not in table:
        raise UserError(unknown(kind, name, table))
    return table[name]


def resolve(name: str) -> object:
    """Import `package.module:attribute`; the working directory is searched too.

    Raises:
        UserError: if the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise UserError(f"Expected package.module:attribute, not {name!r}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except USER_CODE_ERRORS as error:
        kind = type(error).__name__
        raise UserError(f"Cannot import {module_name!r} ({name!r}): {kind}: {error}.") from error
    if not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{module_name}: {unknown('attribute', attribute, public)}")
    return getattr(module, attribute)
