"""Keep decoded images and targets between epochs and cases: nothing is decoded twice."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.datasets.base import Pair
from bench.errors import UserError
from bench.machine import lease
from bench.machine.cache_folder import cache_folder
from bench.machine.files import CannotWrite, read_json, write_json
from bench.suite.schema import Cache

UNFINISHED = ".tmp"
LOCK_WAIT_S = 1.0  # between two calls of `beat`
NUM_TRIED = 8  # pairs that are decoded to estimate the space of all
log = logging.getLogger("bench.case")


class CacheError(UserError):
    """Decoded images cannot be kept in the cache folder."""


@dataclass(frozen=True)
class OnDisk:
    """Pairs in one file that every process maps into memory.

    index: (N, 5) int64: the byte where a pair starts, H and W of its image, h and w of its target.
    """

    folder: Path
    index: NDArray[np.int64]
    where: str = "disk"

    @cached_property
    def data(self) -> NDArray[np.uint8]:
        """The bytes of all pairs."""
        return np.memmap(self.folder / "data.bin", np.uint8, "r")

    def __reduce__(self) -> tuple[Any, ...]:
        return OnDisk, (self.folder, self.index)  # another process maps the file itself

    def __getitem__(self, i: int) -> Pair:
        start, height, width, target_height, target_width = self.index[i].tolist()
        middle = start + height * width * 3
        end = middle + target_height * target_width
        image = np.array(self.data[start:middle]).reshape(height, width, 3)
        return image, np.array(self.data[middle:end]).reshape(target_height, target_width)


@dataclass(frozen=True)
class InRam:
    """Pairs in the memory of this process and of the workers that it forks."""

    pairs: Sequence[Pair]
    where: str = "ram"

    def __getitem__(self, i: int) -> Pair:
        image, target = self.pairs[i]
        return image.copy(), target.copy()


Kept = OnDisk | InRam


def keep(
    cache: Cache,
    key: str,
    about: str,
    num_pairs: int,
    decode: Callable[[int], Pair],
    decode_all: Callable[[], Iterator[Pair]],
    times_read: int,
    beat: Callable[[], None] = lambda: None,
) -> Kept | None:
    """Return decoded pairs: from the cache if it has them, else decoded now and kept.

    Args:
        cache: `auto` keeps pairs that are read more than once: on disk, or in memory if the disk
            is too full, or not at all if neither has room.
        key: identifies the content; different pairs have different keys.
        about: the description that `bench data cache` shows.
        decode: decodes one pair, to estimate the space.
        decode_all: decodes all pairs in order.
        times_read: how often each pair will be read.
        beat: called while another process decodes the same pairs.

    Returns:
        The pairs; None if they must be decoded each time.

    Raises:
        UserError: if the cache that was asked for has no room or cannot be written.
    """
    if cache == "none" or num_pairs == 0:
        return None
    folder = cache_folder() / "decoded" / key
    if cache != "ram":
        found = open_kept(folder, num_pairs)
        if found is not None:
            return found
    if cache == "auto" and times_read < 2:
        return None
    needed = _estimate(num_pairs, decode)
    bound = _bound(folder.parent)
    if cache != "ram" and needed <= bound:
        try:
            return _on_disk(folder, about, num_pairs, needed, decode_all, beat)
        except CacheError as error:
            if cache == "disk":
                raise
            log.warning("%s", error)
    if cache == "disk":
        raise UserError(
            f"{about} takes {needed / 1e9:.1f} GB decoded, more than the cache limit of "
            f"{bound / 1e9:.1f} GB in {folder.parent}. Set BENCH_CACHE to another folder, raise "
            "BENCH_CACHE_GB, or use cache: none."
        )
    if needed <= psutil.virtual_memory().available // 2:
        return InRam(list(decode_all()))
    if cache == "ram":
        raise UserError(
            f"{about} takes {needed / 1e9:.1f} GB decoded, more than half of the free memory. "
            "Use cache: disk or cache: none."
        )
    return None


def open_kept(folder: Path, num_pairs: int) -> OnDisk | None:
    """Open pairs that were kept before; None if there are none or they are incomplete."""
    about = read_json(folder / "about.json")
    if not isinstance(about, dict):
        return None
    try:
        kept = OnDisk(folder, np.load(folder / "index.npy"))
        whole = kept.index.shape == (num_pairs, 5) and len(kept.data) == about.get("bytes")
    except (OSError, ValueError, EOFError):
        return None
    with suppress(OSError):  # it may belong to another user
        os.utime(folder / "about.json")  # marks it as recently used
    return kept if whole else None


def _on_disk(
    folder: Path,
    about: str,
    num_pairs: int,
    needed: int,
    decode_all: Callable[[], Iterator[Pair]],
    beat: Callable[[], None],
) -> OnDisk:
    """Decode into a folder that appears whole; if another process does so, wait for it."""
    beside = folder.with_suffix(UNFINISHED)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock"), beat):
            found = open_kept(folder, num_pairs)
            if found is not None:
                return found
            shutil.rmtree(folder, ignore_errors=True)  # truncated, or in an old layout
            shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed
            make_room(folder.parent, needed)
            beside.mkdir()
            log.info("decoding %s once, into %s", about, folder)
            try:
                num_bytes = _write(beside, decode_all())
                facts = {"about": about, "bytes": num_bytes, "made": time.time()}
                write_json(beside / "about.json", facts)
                os.replace(beside, folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            made = open_kept(folder, num_pairs)
            assert made is not None
            return made
    except (OSError, CannotWrite) as error:
        raise CacheError(f"Cannot keep decoded images in {folder.parent}: {error}.") from error


@contextmanager
def _lock(file: Path, beat: Callable[[], None]) -> Iterator[None]:
    """Take a lease, calling `beat` while another process has it."""
    watch = lease.Watch(file)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lease.hold(file, watch))
                break
            except lease.Taken:
                beat()
                time.sleep(LOCK_WAIT_S)
        yield


def _write(folder: Path, pairs: Iterator[Pair]) -> int:
    """Write pairs one after another, and an index of where each starts; return the bytes."""
    rows, start = [], 0
    with (folder / "data.bin").open("wb") as stream:
        for image, target in pairs:
            rows.append((start, *image.shape[:2], *target.shape))
            start += stream.write(np.ascontiguousarray(image).data)
            start += stream.write(np.ascontiguousarray(target).data)
        stream.flush()
        os.fsync(stream.fileno())
    np.save(folder / "index.npy", np.array(rows, np.int64))
    return start


def _estimate(num_pairs: int, decode: Callable[[int], Pair]) -> int:
    """Return the bytes of all pairs, estimated from a few."""
    tried = sorted({i * num_pairs // NUM_TRIED for i in range(NUM_TRIED)} & set(range(num_pairs)))
    sizes = [sum(array.nbytes for array in decode(i)) for i in tried]
    return round(num_pairs * sum(sizes) / len(sizes))


@dataclass(frozen=True)
class Entry:
    """One entry of the cache: the images of one split at one size."""

    path: Path
    about: str
    num_bytes: int
    used: float  # time of the last use, in seconds since 1970


def entries(folder: Path | None = None) -> list[Entry]:
    """List the entries of decoded images, least recently used first."""
    folder = folder or cache_folder() / "decoded"
    found = []
    for path in folder.glob("*"):
        if path.is_dir():
            about: Any = read_json(path / "about.json") or {}
            stats = {f.name: status for f in path.glob("*") if (status := _status(f)) is not None}
            num_bytes = sum(status.st_size for status in stats.values())
            used = stats["about.json"].st_mtime if "about.json" in stats else 0.0
            found.append(Entry(path, about.get("about", "incomplete"), num_bytes, used))
    return sorted(found, key=lambda entry: entry.used)


def _status(file: Path) -> os.stat_result | None:
    """Return a file's status; None if another process has just removed it."""
    try:
        return file.stat()
    except OSError:
        return None


def make_room(folder: Path, needed: int) -> None:
    """Remove the least recently used entries until `needed` more bytes fit within the limit.

    A process that has a removed file open can still read it.
    """
    kept = entries(folder)
    room = _bound(folder) - sum(entry.num_bytes for entry in kept)
    for entry in kept:
        if room >= needed:
            return
        if entry.path.suffix != UNFINISHED or not _is_held(entry.path):
            shutil.rmtree(entry.path, ignore_errors=True)
            room += entry.num_bytes


def _is_held(unfinished: Path) -> bool:
    """Return whether a process is still writing an entry."""
    seen = lease.latest(unfinished.with_suffix(".lock"))
    if seen is None or lease.is_free(seen):
        return False
    return time.time() - seen.touched / 1e9 < lease.lease_s()  # the cache is on this machine


def _bound(folder: Path) -> int:
    """Return how many bytes all entries may take: $BENCH_CACHE_GB, or half of the free disk."""
    given = os.environ.get("BENCH_CACHE_GB")
    if given is not None:
        try:
            return round(float(given) * 1e9)
        except ValueError as error:
            raise UserError(f"BENCH_CACHE_GB must be a number of GB, not {given!r}.") from error
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    ours = sum(entry.num_bytes for entry in entries(folder))
    return (shutil.disk_usage(existing).free + ours) // 2


def clear_cache() -> tuple[int, int]:
    """Remove everything that is kept; return how many decoded splits and bytes that was."""
    parts = [cache_folder() / part for part in ("decoded", "digests", "counts", "loading")]
    files = [file for part in parts for file in part.rglob("*") if file.is_file()]
    num_bytes = sum(status.st_size for file in files if (status := _status(file)) is not None)
    num_entries = len(entries())
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    return num_entries, num_bytes
