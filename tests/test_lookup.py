import pytest

from bench.errors import UserError
from bench.lookup import pick, resolve, unknown


def test_pick_finds() -> None:
    assert pick("loss", "dice", {"dice": 1}) == 1


def test_pick_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"Unknown loss 'dise'\. Did you mean 'dice'\? Known: dice"):
        pick("loss", "dise", {"dice": 1})


def test_long_tables_are_cut() -> None:
    message = unknown("name", "zzz", [f"n{i:03d}" for i in range(100)])
    assert "and 60 more" in message
    assert "n050" not in message


def test_resolve_imports() -> None:
    assert resolve("math:pi") == pytest.approx(3.14159, abs=1e-5)


def test_resolve_names_what_is_missing() -> None:
    with pytest.raises(UserError, match="Cannot import 'no_such_module'"):
        resolve("no_such_module:x")
    with pytest.raises(UserError, match="Did you mean 'sqrt'"):
        resolve("math:sqrtt")


def test_capitals_do_not_hide_a_name() -> None:
    assert "Did you mean 'miou'?" in unknown("column", "mIoU", ["miou", "loss"])
