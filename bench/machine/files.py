"""Write files atomically; read and write JSON."""

import json
import os
import platform
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import UserError


class CannotWrite(UserError):
    """A file could not be written, for example because the disk is full."""


def write_atomically(file: Path, write: Callable[[Path], None], sync: bool = True) -> None:
    """Write a file so that it appears whole or not at all.

    Args:
        write: writes the temporary file that it is given.
        sync: make sure that the file is on the disk before it gets its name.

    Raises:
        CannotWrite: with the reason; a file that existed before is unchanged.
    """
    beside = file.with_name(f".{file.name}.{platform.node()}.{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        if sync:
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())
        os.replace(beside, file)
    except OSError as error:
        raise CannotWrite(f"Cannot write {file}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_text(file: Path, text: str, sync: bool = True) -> None:
    """Write a text file atomically."""
    write_atomically(file, lambda beside: _write(beside, text), sync)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def write_json(file: Path, value: Any, sync: bool = True) -> None:
    """Write JSON atomically."""
    write_text(file, json.dumps(value, indent=1, allow_nan=False) + "\n", sync)


def read_json(file: Path) -> Any:
    """Read JSON; None if the file does not exist or is not valid JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
