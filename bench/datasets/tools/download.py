"""Fetch the files of a dataset: downloads that go on where they broke off, unpacked whole."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout

from bench.datasets.registry import open_dataset
from bench.datasets.tools.archives import Archive, archives
from bench.datasets.tools.unpack import MIB, Progress, check_space, unpack, verify
from bench.errors import UserError
from bench.machine.files import read_json, write_json

TIMEOUT_S = 30.0  # to connect, and without a byte
PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before a broken download goes on; counted anew after any gain
CHUNK = 1 << 18
UNPACKED = 2  # files take at most so many times the space of their archive


class _Broken(Exception):
    """A download that did not reach its end, and why."""


def missing(name: str, root: Path) -> tuple[Archive, ...]:
    """Return the archives whose files are not at the root, so that `get` would fetch them.

    Files that the user brought count as there where all that the dataset lists is there.
    """
    return tuple(archive for archive in archives(name, root) if not _is_there(archive, root))


def get(name: str, root: Path, progress: Progress) -> Path:
    """Download and unpack what is missing of a dataset, and return its root.

    An archive that lies at the root already is verified and used instead, and kept; one that is
    downloaded here is removed once it is unpacked. A second call finishes what was interrupted.

    Args:
        progress: told the file, what is done of it and all there is, in bytes; None where the
            server does not say. Unpacking is told as "unpacking <file>".

    Raises:
        NothingToFetch: where the dataset is not downloaded, with what to do instead.
        UserError: where an archive cannot be reached, is not what it should be or has no space.
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
    # Ours was .part, and has notes until it is unpacked: a call before this one was killed.
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
    """Tell whether all files can be found: the official number of them, or what we unpacked."""
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
                f"{root / name} is there, is not complete, and would be read instead of what "
                f"{archive.file} holds. Complete it by hand, or give another folder with --root."
            )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other processes from fetching into the same folder."""
    lock = FileLock(root / ".bench-get.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"Another process is fetching into {root}. Wait until it is done."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _part(archive: Archive, root: Path) -> Path:
    """Name a download that has not reached its end."""
    return root / f"{archive.file}.part"


def _notes(archive: Archive, root: Path) -> Path:
    """Name what is noted beside a download: which version of the file the server sent."""
    return root / f".bench-{archive.file}.json"


def _done(archive: Archive, root: Path) -> Path:
    """Name what says that an archive was unpacked to its end."""
    return root / f".bench-{archive.file}.done"


def _identity(archive: Archive) -> dict[str, str]:
    return {"url": archive.url, "checksum": archive.checksum}


def _download(archive: Archive, root: Path, progress: Progress) -> None:
    """Download an archive, going on where it broke off; nothing is retried before a first byte."""
    part = _part(archive, root)
    farthest = _size(part)
    pauses: Iterator[float] = iter(())
    while True:
        try:
            _go_on(archive, root, progress)
            break
        except _Broken as error:
            size = _size(part)
            if size > farthest:
                farthest, pauses = size, iter(PAUSES_S)
            pause = next(pauses, None)
            if pause is None:
                kept = f" {size / MIB:.1f} MiB are kept to go on from." if size else ""
                raise UserError(
                    f"Cannot download {archive.url}: {error}.{kept} Fetch it elsewhere and put it "
                    f"at {root / archive.file}, then run the same command again."
                ) from error
            time.sleep(pause)
    try:
        verify(archive, part, "It was deleted; run the same command again to download it anew.")
    except UserError:
        _notes(archive, root).unlink(missing_ok=True)
        part.unlink()
        raise
    os.replace(part, root / archive.file)


def _go_on(archive: Archive, root: Path, progress: Progress) -> None:
    """Ask once for what is not there yet, and write it."""
    part = _part(archive, root)
    have = _size(part)
    headers = {"User-Agent": "bench"}
    if have:
        headers["Range"] = f"bytes={have}-"
        version = (read_json(_notes(archive, root)) or {}).get("version")
        if version:
            headers["If-Range"] = version
    try:
        answer = urlopen(Request(archive.url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise _Broken(f"the server answers {error.code} {error.reason}") from error
        if error.headers.get("Content-Range") != f"bytes */{have}":
            os.truncate(part, 0)
            _go_on(archive, root, progress)
        return
    except (OSError, HTTPException) as error:
        raise _Broken(_reason(error)) from error
    with answer:
        resumed = answer.status == HTTPStatus.PARTIAL_CONTENT
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            os.truncate(part, 0)
            raise _Broken("the server sent another part than was asked for")
        _receive(answer, have if resumed else 0, archive, root, progress)


def _receive(
    answer: HTTPResponse, size: int, archive: Archive, root: Path, progress: Progress
) -> None:
    """Write what an answer holds behind the first `size` bytes."""
    length = answer.headers.get("Content-Length")
    total = size + int(length) if length is not None else None
    if total is not None:
        check_space(root, total - size + UNPACKED * total, archive.file)
    with _part(archive, root).open("ab" if size else "wb") as stream:
        write_json(_notes(archive, root), {"version": _version(answer)})
        progress(archive.file, size, total)
        while total is None or size < total:
            try:
                chunk = answer.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise _Broken(_reason(error)) from error
            if not chunk:
                break
            stream.write(chunk)
            size += len(chunk)
            progress(archive.file, size, total)
    if total is not None and size < total:
        raise _Broken(f"the connection was closed after {size} of {total} bytes")


def _version(answer: HTTPResponse) -> str | None:
    """Return what tells the server whether its file changed; a weak ETag may not be sent."""
    etag: str | None = answer.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return answer.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
