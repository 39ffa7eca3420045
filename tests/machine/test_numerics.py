from pathlib import Path

import pytest
from conftest import ROOT

from bench.machine.files import read_json
from bench.machine.numerics import Numerics, read_numerics

RECORDS = sorted((ROOT / "results" / "published").rglob("record.json"))


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.parent.name)
def test_published_numerics_are_read_whole(file: Path) -> None:
    stored = read_json(file)["numerics"]
    assert stored.pop("compiled", False) is False  # an older name: not compiled
    assert {key: read_numerics(stored).as_dict()[key] for key in stored} == stored


def test_keys_of_other_versions() -> None:
    assert read_numerics({}) == Numerics()
    stored = {"device": "cuda", "precision": "bf16", "speed": "fast"}
    assert read_numerics(stored) == Numerics(device="cuda", precision="bf16")
    assert read_numerics(Numerics("cpu", threads=2).as_dict()) == Numerics("cpu", threads=2)
