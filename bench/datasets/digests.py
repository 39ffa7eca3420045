"""Content hashes of files, remembered for as long as a file's size and time stay."""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from bench.errors import UserError
from bench.machine.cache_folder import cache_folder
from bench.machine.files import read_json, write_json

SETTLED_S = 2.0  # a file changed more recently could change again within its time stamp
NUM_THREADS = 8  # reading waits for the disk, and hashing frees the interpreter


def digests(root: Path | None, files: Iterable[Path]) -> dict[Path, str]:
    """Hash the contents of files; those that did not change since the last time are not read.

    Args:
        root: the folder of the dataset; its hashes are remembered together.

    Raises:
        UserError: where a file cannot be read.
    """
    files = list(dict.fromkeys(files))
    if not files:
        return {}
    memory = cache_folder() / "digests" / f"{_name(root)}.json"
    known = read_json(memory) or {}
    stamps = {file: _stamp(file) for file in files}
    found = {
        file: known[os.path.abspath(file)][-1]
        for file in files
        if _is_known(known, file, stamps[file])
    }
    changed = [file for file in files if file not in found]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found |= dict(zip(changed, pool.map(_digest, changed), strict=True))
    settled = time.time() - SETTLED_S
    new = {
        os.path.abspath(file): [*stamps[file], found[file]]
        for file in changed
        if max(stamps[file][1:]) / 1e9 < settled
    }
    if new:
        with suppress(UserError):  # where the cache cannot be written, nothing is remembered
            write_json(memory, known | new, sync=False)
    return found


def _name(root: Path | None) -> str:
    return hashlib.sha256(os.fsencode(root.resolve() if root else "")).hexdigest()[:16]


def _stamp(file: Path) -> list[int]:
    """Return size, time of the last change of content and of anything at all, in ns."""
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_known(known: dict[str, list[object]], file: Path, stamp: list[int]) -> bool:
    return os.path.abspath(file) in known and known[os.path.abspath(file)][:-1] == stamp


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
