"""What docs/models.md says of the networks is what they are."""

import re
from importlib import import_module

import torch
from conftest import ROOT

from bench.columns import COLUMNS
from bench.suite import USUAL_TABLES
from custom_models import ARCHITECTURES

TEXT = (ROOT / "docs" / "models.md").read_text()
ROWS = re.findall(
    r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \| ([\d][^|]*) \| ([^|]*)\|$", TEXT, re.MULTILINE
)


def test_the_table_names_every_architecture_with_its_parameters() -> None:
    told = {}
    for names, counts, _ in ROWS:
        numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\d", counts.split("(")[0])]
        told |= dict(zip(re.findall(r"\w+", names), numbers, strict=True))
    found = {}
    for name in ARCHITECTURES:
        with torch.device("meta"):
            net = import_module(f"custom_models.{name}").build(21)
        found[name] = sum(p.numel() for p in net.parameters())
    assert told == found


def test_the_table_names_every_option() -> None:
    for names, _, options in ROWS:
        for name in re.findall(r"\w+", names):
            for option in ARCHITECTURES[name].options:
                if option != "pretrained":  # set by weights:
                    assert f"`{option}" in options, f"{name}: {option}"


def test_docs_of_reports_name_every_column_and_kind() -> None:
    text = (ROOT / "docs" / "reports.md").read_text()
    assert not [name for name in (*COLUMNS, *USUAL_TABLES) if f"`{name}`" not in text]
