from pathlib import Path

import pytest

from bench.errors import UserError
from bench.suite.yaml_file import merge, parse_value, read


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("1e-3", 0.001),
        ("1.5", 1.5),
        ("-3", -3),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("12:30", "12:30"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_places_and_duplicates(tmp_path: Path) -> None:
    document = read(write(tmp_path, "a:\n  b: 1\n  b: 2\nc:\n  - d: 3\n"))
    assert document.data == {"a": {"b": 1}, "c": [{"d": 3}]}
    assert document.place(("c", 0, "d")).endswith("a.yaml:5")
    assert document.place(("a", "tag of a union", "b")).endswith("a.yaml:2")
    [fault] = document.faults
    assert "Duplicate key 'b', first given in line 2" in fault.message
    assert document.place(fault.path).endswith("a.yaml:3")


def test_include_gives_defaults(tmp_path: Path) -> None:
    write(tmp_path, "x: {p: 1, q: 2}\nz: [1, 2]\n", "base.yaml")
    document = read(write(tmp_path, "include: base.yaml\nx: {q: 3}\nz: [3]\n"))
    assert document.data == {"x": {"p": 1, "q": 3}, "z": [3]}
    assert document.place(("x", "p")).endswith("base.yaml:1")
    assert document.place(("x", "q")).endswith("a.yaml:2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include: a.yaml\n", "includes itself"),
        ("include: gone.yaml\n", "included file .*gone.yaml does not exist"),
        ("b: 2\na: [1\n", r"a\.yaml:2: a \[ is not closed\."),
        ("b: 2\na: {x: {y: 1}\nc: 3\n", r"a\.yaml:2: a { is not closed\."),
        ("b: 2\na: 'x\nc: 3\n", r"a\.yaml:2: a quote is not closed\."),
        ('b: 2\na: {x: "y}\nc: 3\n', r"a\.yaml:2: a quote is not closed\."),
        ("a: [1, }\n", r"a\.yaml:1: invalid YAML"),
        ("a: &x [*x]\n", "alias is inside its own anchor"),
        ("a: \x00\n", "invalid YAML"),
    ],
)
def test_faults_of_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read .*gone.yaml: No such file"):
        read(tmp_path / "gone.yaml")


def test_merge_leaves_its_arguments() -> None:
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1\n", r"s\.yaml:2: a tab; use spaces to indent"),
        ("a: 1\n\t b: 1\n", r"s\.yaml:2: a tab; use spaces"),
        ("a:\n  b: {}\n   c: 3\n", r"s\.yaml:3: 'c: 3' is not indented like the lines above it"),
        ("a:\n  b:3\n  c: 4\n", r"s\.yaml:3: a space is missing after the colon in 'b:3'"),
        ("a: {shortest:384}\n", r"s\.yaml:1: a space is missing after the colon: shortest: 384"),
        ("a: {split}/*.png\n", "Quote a value that begins with { or"),
    ],
)
def test_slips_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "s.yaml")
