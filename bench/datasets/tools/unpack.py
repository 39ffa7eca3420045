"""Verify and unpack archives; files appear only in the given folder, and only complete."""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from bench.datasets.tools.archives import Archive
from bench.errors import UserError

MIB = 1 << 20
UNREADABLE = (  # what reading a damaged archive can raise
    tarfile.TarError,
    BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    RuntimeError,
)
Progress = Callable[[str, int, int | None], None]


def check_space(root: Path, needed: int, what: str) -> None:
    """Check the free space of a disk.

    Args:
        needed: bytes.
        what: what needs them, for the message.

    Raises:
        UserError: if there is too little.
    """
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{what} needs {needed / MIB:,.0f} MiB with its unpacked files, but {root} has "
            f"{free / MIB:,.0f} MiB free. Free some space, or give another folder with --root."
        )


def verify(archive: Archive, file: Path, advice: str) -> None:
    """Check that a file is the archive.

    Args:
        advice: what the message tells the user to do.

    Raises:
        UserError: with what was expected and found, if it is not.
    """
    kind, _, expected = archive.checksum.partition(":")
    if kind == "commit":
        found = _zip_commit(file)
    else:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False))
        found = digest.hexdigest()
    if found != expected:
        raise UserError(
            f"{file} is not {archive.url}: expected {kind} {expected}, found {found}. {advice}"
        )


def _zip_commit(file: Path) -> str:
    """Return the commit named in a zip from GitHub, or what is damaged in it."""
    try:
        with ZipFile(file) as archive:
            damaged = archive.testzip()
            commit = archive.comment.decode("ascii", "replace") or "none"
    except UNREADABLE as error:
        return f"an invalid zip file ({error})"
    return f"a damaged member {damaged}" if damaged else commit


def unpack(archive: Archive, root: Path, progress: Progress) -> None:
    """Unpack into a temporary folder, then move the files into place.

    Files of the same name are replaced. Folders that do not exist yet are moved as a whole.

    Raises:
        UserError: if the archive is damaged, lacks the wanted files, has one that would land
            outside the folder, or does not fit on the disk.
    """
    file = root / archive.file
    folder = root / f".bench-{archive.file}.unpacking"
    if folder.exists():
        shutil.rmtree(folder)
    try:
        with _opened(file) as members:
            wanted = [one for one in members if _is_in(one.name, archive.inside)]
            if not wanted:
                raise UserError(
                    f"{file} has no files{f' in {archive.inside}' if archive.inside else ''}."
                )
            for member in wanted:
                _refuse_outside(member.name, file)
            total, done = sum(member.size for member in wanted), 0
            check_space(root, total, archive.file)
            for member in wanted:
                member.extract(folder)
                done += member.size
                progress(f"unpacking {archive.file}", done, total)
        _move_into(folder / archive.inside, root)
    except UNREADABLE as error:
        raise UserError(f"Cannot unpack {file}: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Member:
    """A file in an archive; `extract` writes it below a folder."""

    name: str
    size: int
    extract: Callable[[Path], object]


@contextmanager
def _opened(file: Path) -> Iterator[list[_Member]]:
    """List the files of a zip or tar; links, which no dataset here needs, are left out."""
    if file.suffix == ".zip":
        with ZipFile(file) as archive:
            yield [
                _Member(one.filename, one.file_size, partial(archive.extract, one))
                for one in archive.infolist()
                if not one.is_dir()
            ]
    else:
        with tarfile.open(file) as tar:
            yield [
                _Member(one.name, one.size, partial(tar.extract, one, filter="data"))
                for one in tar.getmembers()
                if one.isfile()
            ]


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _refuse_outside(name: str, file: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise UserError(
            f"{file} is refused: its member {name!r} would be unpacked outside the folder."
        )


def _move_into(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move_into(entry, place)
        else:
            os.replace(entry, place)
