import pytest

from bench.errors import UserError
from bench.text import duration, first_line, listed, name_and_value, percent, plural


@pytest.mark.parametrize(
    ("num", "shown"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more")]
)
def test_long_lists_are_cut(num: int, shown: str) -> None:
    assert listed(range(num), most=3) == shown


def test_words() -> None:
    assert (plural(1, "case"), plural(0, "case"), plural(1234, "file")) == (
        "1 case",
        "0 cases",
        "1,234 files",
    )
    assert (percent(0.125), percent(None)) == ("12.50 %", "none")
    assert duration(3599.6) == "1 h 0 min"


def test_an_error_becomes_one_short_line() -> None:
    assert first_line(ValueError("a\n  b")) == "a b"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) == 301


@pytest.mark.parametrize(
    ("text", "pair"),
    [("a=1", ("a", "1")), ("a.b=x=y", ("a.b", "x=y")), (" a =", ("a", "")), ("a= b", ("a", " b"))],
)
def test_name_and_value(text: str, pair: tuple[str, str]) -> None:
    assert name_and_value(text, "--set", "x=1") == pair


@pytest.mark.parametrize("text", ["", "a", "=", "=1", " =1"])
def test_without_a_name_or_a_value_there_is_a_message(text: str) -> None:
    with pytest.raises(UserError, match=r"--root takes NAME=VALUE, such as x=1, not "):
        name_and_value(text, "--root", "x=1")
