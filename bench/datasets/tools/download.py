"""Download the files of a dataset, resuming downloads that broke off, and unpack them."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench.datasets.registry import open_dataset
from bench.datasets.tools.archives import Archive, archives
from bench.datasets.tools.unpack import MIB, Progress, check_space, unpack, verify
from bench.errors import UserError
from bench.machine import lease
from bench.machine.files import read_json, write_json

TIMEOUT_S = 30.0  # to connect, and between bytes
PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before each retry; starts over after any progress
CHUNK = 1 << 18
UNPACKED = 2  # unpacked files take at most this many times the size of their archive


class _Broken(Exception):
    """A download that broke off, and why."""


def missing(name: str, root: Path) -> tuple[Archive, ...]:
    """Return the archives that `get` would download, because their files are not at the root.

    Files that the user put there count if all files that the dataset lists exist.
    """
    return tuple(archive for archive in archives(name, root) if not _is_there(archive, root))


def get(name: str, root: Path, progress: Progress) -> Path:
    """Download and unpack the missing files of a dataset, and return its root.

    An archive that is already at the root is verified, used and kept; a downloaded one is removed
    once it is unpacked. A second call finishes an interrupted one.

    Args:
        progress: called with the file name, the bytes done and the bytes in total, which are None
            if the server does not say. While unpacking, the name is "unpacking <file>".

    Raises:
        NothingToFetch: if the dataset has no download; the message says what to do instead.
        UserError: if an archive cannot be downloaded, is not the expected one or does not fit on
            the disk.
    """
    if not missing(name, root):
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            for archive in archives(name, root):
                if not _is_there(archive, root):
                    _fetch_and_unpack(archive, root, progress)
    except OSError as error:
        raise UserError(
            f"Cannot write {error.filename or root}: {error.strerror or error}."
        ) from error
    return root


def _fetch_and_unpack(archive: Archive, root: Path, progress: Progress) -> None:
    _refuse_hidden(archive, root)
    file, part, notes = root / archive.file, _part(archive, root), _notes(archive, root)
    # A file with notes and without .part is our own download: an earlier call was killed.
    by_hand = file.is_file() and (part.exists() or not notes.exists())
    if file.is_file():
        verify(archive, file, "Remove it, then run the same command again to download it.")
    else:
        _download(archive, root, progress)
    unpack(archive, root, progress)
    write_json(_done(archive, root), _identity(archive))
    if not by_hand:
        file.unlink()
    notes.unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _is_there(archive: Archive, root: Path) -> bool:
    """Check that all files exist: the official number of them, or those that we unpacked."""
    if not root.is_dir():
        return False
    unpacked = read_json(_done(archive, root)) == _identity(archive)
    name = archive.dataset
    dataset = open_dataset(name, name, None, {"partial": unpacked}, {name: root})
    try:
        return all(dataset.samples(split) for split in archive.splits)
    except UserError:
        return False


def _refuse_hidden(archive: Archive, root: Path) -> None:
    for name in archive.hidden_by:
        if (root / name).exists():
            raise UserError(
                f"{root / name} exists but is incomplete, and would be read instead of the files "
                f"of {archive.file}. Complete it by hand, or give another folder with --root."
            )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other processes from downloading into the same folder."""
    watch = lease.Watch(root / ".bench-get.lock")
    lease.await_signs([watch])
    with ExitStack() as stack:
        try:
            stack.enter_context(lease.hold(watch.place, watch))
        except lease.Taken as taken:
            raise UserError(
                f"{str(taken).capitalize()} is downloading into {root}. Wait until it has finished."
            ) from None
        yield


def _part(archive: Archive, root: Path) -> Path:
    """Return the path of an unfinished download."""
    return root / f"{archive.file}.part"


def _notes(archive: Archive, root: Path) -> Path:
    """Return the path of the notes of a download: which version the server sent."""
    return root / f".bench-{archive.file}.json"


def _done(archive: Archive, root: Path) -> Path:
    """Return the path of the marker that an archive was unpacked completely."""
    return root / f".bench-{archive.file}.done"


def _identity(archive: Archive) -> dict[str, str]:
    return {"url": archive.url, "checksum": archive.checksum}


def _download(archive: Archive, root: Path, progress: Progress) -> None:
    """Download an archive; retry from where it broke off, as long as more bytes arrive."""
    part = _part(archive, root)
    farthest = _size(part)
    pauses: Iterator[float] = iter(())
    while True:
        try:
            _request(archive, root, progress)
            break
        except _Broken as error:
            size = _size(part)
            if size > farthest:
                farthest, pauses = size, iter(PAUSES_S)
            pause = next(pauses, None)
            if pause is None:
                kept = f" The first {size / MIB:.1f} MiB are kept." if size else ""
                raise UserError(
                    f"Cannot download {archive.url}: {error}.{kept} Download it elsewhere, put it "
                    f"at {root / archive.file} and run the same command again."
                ) from error
            time.sleep(pause)
    try:
        verify(archive, part, "It was deleted; run the same command to download it again.")
    except UserError:
        _notes(archive, root).unlink(missing_ok=True)
        part.unlink()
        raise
    os.replace(part, root / archive.file)


def _request(archive: Archive, root: Path, progress: Progress) -> None:
    """Request the missing bytes once, and write them."""
    part = _part(archive, root)
    have = _size(part)
    headers = {"User-Agent": "bench"}
    if have:
        headers["Range"] = f"bytes={have}-"
        version = (read_json(_notes(archive, root)) or {}).get("version")
        if version:
            headers["If-Range"] = version
    try:
        response = urlopen(Request(archive.url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise _Broken(f"the server answered {error.code} {error.reason}") from error
        if error.headers.get("Content-Range") != f"bytes */{have}":
            os.truncate(part, 0)
            _request(archive, root, progress)
        return
    except (OSError, HTTPException) as error:
        raise _Broken(_reason(error)) from error
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            os.truncate(part, 0)
            raise _Broken("the server sent a different part than requested")
        _receive(response, have if resumed else 0, archive, root, progress)


def _receive(
    response: HTTPResponse, size: int, archive: Archive, root: Path, progress: Progress
) -> None:
    """Append the body of a response to the first `size` bytes."""
    length = response.headers.get("Content-Length")
    total = size + int(length) if length is not None else None
    if total is not None:
        check_space(root, total - size + UNPACKED * total, archive.file)
    with _part(archive, root).open("ab" if size else "wb") as stream:
        write_json(_notes(archive, root), {"version": _version(response)})
        progress(archive.file, size, total)
        while total is None or size < total:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise _Broken(_reason(error)) from error
            if not chunk:
                break
            stream.write(chunk)
            size += len(chunk)
            progress(archive.file, size, total)
    if total is not None and size < total:
        raise _Broken(f"the connection was closed after {size} of {total} bytes")


def _version(response: HTTPResponse) -> str | None:
    """Return the version that the server gives its file; If-Range allows no weak ETag."""
    etag: str | None = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
