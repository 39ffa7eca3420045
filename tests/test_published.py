"""Tables made from the committed records equal the committed tables, byte for byte."""

from pathlib import Path

import pytest
from conftest import ROOT

from bench.report.report import report
from bench.report.write import write

PUBLISHED = sorted(file.parent for file in (ROOT / "results" / "published").rglob("suite.json"))


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_tables_follow_from_records(folder: Path, tmp_path: Path) -> None:
    made = report([folder], folder.parent)
    files = write(made, ["md", "latex", "csv"], tmp_path).files
    committed = sorted((folder / "report").iterdir())
    assert [f.name for f in committed] == sorted(f.name for f in files)
    for file in committed:
        assert file.read_bytes() == (tmp_path / folder.name / file.name).read_bytes(), file.name


def test_something_is_published() -> None:
    assert PUBLISHED


def test_no_weights_are_published() -> None:
    kept = [f for f in (ROOT / "results" / "published").rglob("*") if f.is_file()]
    assert not [f for f in kept if f.suffix in (".safetensors", ".pt", ".pth")]
    assert sum(f.stat().st_size for f in kept) < 20e6
