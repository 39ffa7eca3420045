"""Content hashes of files, cached until a file's size or time changes."""

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

SETTLED_S = 2.0  # a more recent change could be followed by another with the same time
NUM_THREADS = 8  # reading waits for the disk, and hashing releases the GIL


def digests(root: Path | None, files: Iterable[Path]) -> dict[Path, str]:
    """Hash the contents of files; files that did not change since the last call are not read.

    Args:
        root: the folder of the dataset; its hashes are cached in one file.

    Raises:
        UserError: if a file cannot be read.
    """
    files = list(dict.fromkeys(files))
    if not files:
        return {}
    cache = cache_folder() / "digests" / f"{_name(root)}.json"
    known = read_json(cache) or {}
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
        with suppress(UserError):  # if the cache cannot be written, continue without it
            write_json(cache, known | new, sync=False)
    return found


def _name(root: Path | None) -> str:
    return hashlib.sha256(os.fsencode(root.resolve() if root else "")).hexdigest()[:16]


def _stamp(file: Path) -> list[int]:
    """Return the size in bytes, and the times of the last change of content and metadata in ns."""
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
