"""Files are found by pattern, and none is lost silently."""

import os
from pathlib import Path

import pytest

from bench.datasets.patterns import Pattern
from bench.errors import UserError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(root: Path, pattern: str) -> list[str]:
    return [one.file.relative_to(root).as_posix() for one in Pattern(root, pattern).files()]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train/*", ["train/b.png", "train/c.jpg"]),
        ("train/*.png", ["train/b.png"]),
        ("train/**/*.png", ["train/b.png", "train/x/b.png", "train/x/y/d.png"]),
        ("train/**", ["train/b.png", "train/c.jpg", "train/x/b.png", "train/x/y/d.png"]),
        ("*/*/b.png", ["train/x/b.png"]),
        ("tra[hi]n/[!c]*", ["train/b.png"]),
        ("train/?.png", ["train/b.png"]),
        ("./train/b.png", ["train/b.png"]),
        ("train/(b).png", []),
        ("gone/**/*", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    make(tmp_path, "train/b.png", "train/c.jpg", "train/x/b.png", "train/x/y/d.png", "a.png")
    assert found(tmp_path, pattern) == expected


def test_folder_and_stem(tmp_path: Path) -> None:
    make(tmp_path, "t/u/7_image.jpg", "t/u/7_label.png", "t/u/7_inst_label.png", "t/8_image.jpg")
    files = Pattern(tmp_path, "t/**/{stem}_image.jpg").files()
    assert [(one.folder, one.stem) for one in files] == [(".", "8"), ("u", "7")]
    make(tmp_path, "v/9/9_rgb.png", "v/9/8_rgb.png")
    [one] = Pattern(tmp_path, "v/{stem}/{stem}_rgb.png").files()
    assert (one.file.name, one.stem, one.folder) == ("9_rgb.png", "9", "9")


def test_hidden_files_never_count(tmp_path: Path) -> None:
    make(tmp_path, "t/a.jpg", "t/._a.jpg", "t/.cache/b.jpg", "t/.ipynb_checkpoints/c.jpg")
    assert found(tmp_path, "t/**/*.jpg") == ["t/a.jpg"]
    assert found(tmp_path, "t/*") == ["t/a.jpg"]


@pytest.mark.parametrize("pattern", ["t/**/*.jpg", "t/*/*.jpg"])
def test_links_are_followed(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "disk/bochum/b.jpg", "t/aachen/a.jpg")
    (tmp_path / "t/bochum").symlink_to(tmp_path / "disk/bochum")
    assert found(tmp_path, pattern) == ["t/aachen/a.jpg", "t/bochum/b.jpg"]
    (tmp_path / "t/aachen/c.jpg").symlink_to(tmp_path / "disk/bochum/b.jpg")
    assert "t/aachen/c.jpg" in found(tmp_path, pattern)


def test_links_that_lead_nowhere_or_in_a_circle_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "t/x/a.jpg")
    (tmp_path / "t/x/up").symlink_to(tmp_path / "t")
    with pytest.raises(UserError, match=r"t/x/up is a link to a folder that it is in"):
        found(tmp_path, "t/**/*.jpg")
    (tmp_path / "t/x/up").unlink()
    (tmp_path / "t/bochum").symlink_to(tmp_path / "unmounted")
    for pattern in ("t/**/*.jpg", "t/*/*.jpg"):
        with pytest.raises(UserError, match=r"t/bochum is a link to .*unmounted, which is gone"):
            found(tmp_path, pattern)


def test_a_link_that_was_copied_as_text_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "disk/bochum/b.jpg", "t/aachen/a.jpg", "t/README")
    assert found(tmp_path, "t/**/*.jpg") == ["t/aachen/a.jpg"]
    (tmp_path / "t/bochum").write_text("../disk/bochum")
    with pytest.raises(UserError, match=r"t/bochum is a text file with the path of a folder"):
        found(tmp_path, "t/**/*.jpg")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    make(tmp_path, "t/x/a.jpg")
    (tmp_path / "t/x").chmod(0)
    with pytest.raises(UserError, match=r"Cannot read the folder .*t/x: Permission denied"):
        found(tmp_path, "t/**/*.jpg")
    (tmp_path / "t/x").chmod(0o755)


LICENCE = "Permission is hereby granted, free of charge, to use and/or copy it.\n" * 9


@pytest.mark.parametrize("content", [LICENCE, "/", "./", "a/b", "..", "x" * 2000 + "/"])
def test_a_text_is_no_link(tmp_path: Path, content: str) -> None:
    make(tmp_path, "t/a.jpg")
    (tmp_path / "t/LICENSE").write_text(content)
    assert found(tmp_path, "t/*.jpg") == ["t/a.jpg"]


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, "t/a.jpg")
    os.mkfifo(tmp_path / "t/b.jpg")
    os.mkfifo(tmp_path / "t/c")
    (tmp_path / "t/notes.txt").symlink_to("gone.txt")  # cannot be a folder of images
    assert found(tmp_path, "t/*.jpg") == ["t/a.jpg"]
    (tmp_path / "t/d.jpg").symlink_to("gone.jpg")  # a missing file, as the check says
    assert found(tmp_path, "t/*.jpg") == ["t/a.jpg", "t/d.jpg"]


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    make(tmp_path, "t/a.jpg")
    (tmp_path / "t/loop").symlink_to("loop")
    with pytest.raises(UserError, match="t/loop"):
        found(tmp_path, "t/**/*.jpg")


def test_letters_in_brackets_are_letters(tmp_path: Path) -> None:
    make(tmp_path, "a&.jpg", "d.jpg", "[.jpg")
    assert found(tmp_path, "[a&&b]*.jpg") == ["a&.jpg"]
    assert found(tmp_path, "[[]*.jpg") == ["[.jpg"]


def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "t/a.jpg")
    (tmp_path / "t" / os.fsdecode(b"gr\xf6\xdfe.jpg")).touch()
    with pytest.raises(UserError, match="is not UTF-8; rename the file"):
        found(tmp_path, "t/*.jpg")
