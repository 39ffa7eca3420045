"""Lists are read in every common form, or refused with file and line."""

from pathlib import Path

import pytest

from bench.datasets.lists import (
    find_listed,
    listed_id,
    read_class_file,
    read_list,
    read_names,
    read_pairs,
)
from bench.errors import UserError


def pairs(file: Path, content: str | bytes) -> list[tuple[str, str]]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(one.image, one.mask) for one in read_pairs(file, "")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.jpg a.png", ("a.jpg", "a.png")),
        ("a.jpg\ta.png", ("a.jpg", "a.png")),
        ("a.jpg,a.png", ("a.jpg", "a.png")),
        ("a.jpg, a.png", ("a.jpg", "a.png")),
        ("a.jpg;a.png", ("a.jpg", "a.png")),
        ('"a.jpg","a.png"', ("a.jpg", "a.png")),
        ('"a.jpg" "a.png"', ("a.jpg", "a.png")),
        ("'a.jpg','a.png'", ("a.jpg", "a.png")),
        ('"a, b.jpg";"a b.png"', ("a, b.jpg", "a b.png")),
        ('"my a.jpg" "my a.png"', ("my a.jpg", "my a.png")),
        ("my a.jpg,my a.png", ("my a.jpg", "my a.png")),
        ("my a.jpg;my, a.png", ("my a.jpg", "my, a.png")),
        ("a,1.jpg a,1.png", ("a,1.jpg", "a,1.png")),
        ("a.JPG a.PNG", ("a.JPG", "a.PNG")),
        ("7,a.jpg,a.png", ("a.jpg", "a.png")),
        ("a.jpg;a.png;train", ("a.jpg", "a.png")),
        ("images/a masks/a", ("images/a", "masks/a")),  # without suffixes, and not a header
        ("image,mask\na.jpg,a.png", ("a.jpg", "a.png")),
        ("mask,image\na.png,a.jpg", ("a.jpg", "a.png")),
        ("label;photo\na.png;a.jpg", ("a.jpg", "a.png")),
        ("id,mask,image,thumb\n1,a.png,a.jpg,t.jpg", ("a.jpg", "a.png")),
        ("some words\na.jpg a.png", ("a.jpg", "a.png")),
        ("# a comment\na.jpg a.png\n#b.jpg b.png", ("a.jpg", "a.png")),
        ("a.jpg a.png 0", ("a.jpg", "a.png")),
    ],
)
def test_two_columns(tmp_path: Path, content: str, expected: tuple[str, str]) -> None:
    assert pairs(tmp_path / "l.txt", content) == [expected]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings(tmp_path: Path, encoding: str, newline: str) -> None:
    content = newline.join(["ä.jpg ä.png", "", "ö.jpg ö.png"]).encode(encoding)
    expected = [("ä.jpg", "ä.png"), ("ö.jpg", "ö.png")]
    assert pairs(tmp_path / "l.txt", content) == expected


def test_latin_1_of_windows(tmp_path: Path) -> None:
    content = "größe…\x85.jpg größe.png".replace("\x85", "").encode("cp1252")
    assert pairs(tmp_path / "l.txt", content) == [("größe….jpg", "größe.png")]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("a.jpg a.png\n\n\none", 4),  # blank lines count
        ("a.jpg\n", 1),
        ("a b.jpg c d.png", 1),
        ("a.jpg,b.jpg,a.png", 1),
        ("image,mask\none", 2),
        ("a.jpg,", 1),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, content: str, place: int) -> None:
    with pytest.raises(UserError, match=rf"l\.txt:{place}: expected an image and a mask, not "):
        pairs(tmp_path / "l.txt", content)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"abc\0def"])
def test_what_is_no_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"Cannot read the list .*l\.txt"):
        pairs(tmp_path / "l.txt", content)


def test_lines(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("\ufeffone\r\n\r\n two \n".encode())
    lines = read_list(tmp_path / "l.txt", "")
    assert [line.text for line in lines] == ["one", "two"]
    assert lines[1].place == f"{tmp_path / 'l.txt'}:3"
    with pytest.raises(UserError, match=r"No file .*gone\.txt\. Expected so\."):
        read_list(tmp_path / "gone.txt", "Expected so.")


def test_names(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    file.write_text('2007_000032\n\n"2007_000039"\n')
    assert read_names(file, "") == ["2007_000032", "2007_000039"]
    for wrong in ("/JPEGImages/a.jpg /SegmentationClass/a.png", "a 1", "a,b", "x/a"):
        file.write_text(f"2007_000032\n{wrong}\n")
        with pytest.raises(UserError, match=r"l\.txt:2: expected one name, without a path, not"):
            read_names(file, "")


def test_paths_of_other_machines(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.jpg").touch()
    for name in ("img/a.jpg", "/img/a.jpg", "img\\a.jpg", "\\img\\a.jpg", "./img/a.jpg"):
        assert find_listed(tmp_path, name).resolve() == (tmp_path / "img/a.jpg").resolve(), name
    assert find_listed(tmp_path, str(tmp_path / "img/a.jpg")) == tmp_path / "img/a.jpg"
    assert find_listed(tmp_path, "/img/b.jpg") == tmp_path / "img/b.jpg"  # for the message
    (tmp_path / "odd\\name.jpg").touch()
    assert find_listed(tmp_path, "odd\\name.jpg") == tmp_path / "odd\\name.jpg"
    assert listed_id("/img/a.jpg") == listed_id("img\\a.jpg") == listed_id("img/a.jpg") == "img/a"


@pytest.mark.parametrize(
    "content",
    [
        "name,r,g,b\nroad,1,2,3\n",
        "name, r, g, b\nroad, 1, 2, 3\n",
        "Name;R;G;B\nroad;1;2;3\n",
        "name\tred\tgreen\tblue\nroad\t1\t2\t3",
        '"name","r","g","b"\n"road","1","2","3"\n',
        "id,name,r,g,b\n0,road,1,2,3\n",
        "r,g,b,class\n1,2,3,road\n",
        b"\xff\xfe" + "name,r,g,b\nroad,1,2,3\n".encode("utf-16-le"),
    ],
)
def test_class_files(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_class_file(file, first=0) == [("road", (1, 2, 3))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no classes"),
        ("name,r,g,b\n", "has no classes"),
        ("name,r,g\nroad,1,2\n", r"c\.csv:1: expected a CSV file with the header name,r,g,b"),
        ("road,1,2,3\nsky,1,2,4\n", r"c\.csv:1: expected"),
        ("name,r,g,b\n\nroad,1,x,3\n", r"c\.csv:3: expected .* not 'road,1,x,3'"),
        ("name,r,g,b\nroad,1,2\n", r"c\.csv:2: expected"),
        ("name,r,g,b\nroad,1,2,256\n", r"c\.csv:2: .*colours in 0\.\.255"),
        ("name,r,g,b\n,1,2,3\n", r"c\.csv:2: expected"),
        ("id,name,r,g,b\n0,a,1,2,3\n7,b,1,2,4\n", r"c\.csv:3: id is 7, but the order of the lines"),
        ("trainId,name,r,g,b\n1,a,1,2,3\n", "trainid is 1, but the order"),
        (",name,r,g,b\n1,a,1,2,3\n", "the number is 1, but the order"),
        ("label,r,g,b\n2,1,2,3\n1,1,2,4\n", "label is 2, but the order"),
        ("name,r,red,g,b\na,1,2,3,4\n", "expected a CSV file"),
    ],
)
def test_class_files_that_are_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_class_file(tmp_path / "c.csv", first=0)


def test_numbers_of_classes_matter_only_for_index_masks(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,name,r,g,b\n1,a,1,2,3\n7,b,1,2,4\n")
    assert [name for name, _ in read_class_file(tmp_path / "c.csv")] == ["a", "b"]
    with pytest.raises(UserError, match="id is 1, but .* gives a the label 0"):
        read_class_file(tmp_path / "c.csv", first=0)
    with pytest.raises(UserError, match="id is 7, but .* gives b the label 2"):
        read_class_file(tmp_path / "c.csv", first=1)  # reduce_zero_label


def test_a_list_without_suffixes_keeps_its_first_line(tmp_path: Path) -> None:
    assert pairs(tmp_path / "l.txt", "a a\nb b") == [("a", "a"), ("b", "b")]


def test_ids_of_absolute_paths_stay(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert listed_id(str(tmp_path / "a.jpg")) == str(tmp_path / "a")
