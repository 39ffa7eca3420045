import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY
from pydantic import BaseModel

from bench.datasets.base import Dataset
from bench.datasets.registry import DATASETS
from bench.errors import Faults
from bench.machine.source_hash import source_hash
from bench.suite.case import FIRST_FIELDS, Case, canonical
from bench.suite.expand import expand, in_order, matching
from bench.suite.load import load
from bench.suite.schema import Frozen

TWO = TINY.replace(
    "  enet: {arch: custom/enet}", "  enet: {arch: custom/enet}\n  fcn: {arch: custom/fcn}"
)


def cases(file: Path, *settings: str) -> list[Case]:
    return expand(load(file, settings).suite)


def test_the_product(write_suite: Callable[..., Path]) -> None:
    found = cases(write_suite(TWO), "seeds=[0,1]")
    assert [case.name for case in found] == [
        "shapes__enet__default__s0",
        "shapes__enet__default__s1",
        "shapes__fcn__default__s0",
        "shapes__fcn__default__s1",
    ]
    assert len({case.id for case in found}) == 4


def test_exclude_and_override(write_suite: Callable[..., Path]) -> None:
    text = TWO + "exclude: [{model: enet, seed: 1}]\noverrides: [{model: f*, recipe: {epochs: 7}}]"
    found = cases(write_suite(text), "seeds=[0,1]")
    assert [(c.model_name, c.seed, c.recipe.epochs) for c in found] == [
        ("enet", 0, 2),
        ("fcn", 0, 7),
        ("fcn", 1, 7),
    ]


def test_rows(write_suite: Callable[..., Path]) -> None:
    rows = "cases:\n  - {dataset: shapes, model: fcn, label: Ours}\n"
    [case] = cases(write_suite(TWO + rows))
    assert case.label == "Ours"
    twice = rows + "  - {dataset: shapes, model: fcn}\n"
    with pytest.raises(Faults, match="given twice"):
        cases(write_suite(TWO + twice))


def test_no_case_left(write_suite: Callable[..., Path]) -> None:
    with pytest.raises(Faults, match="No case is left"):
        cases(write_suite(TWO + "exclude: [{}]\n"))


def test_names_places_and_machines_are_not_in_the_id(write_suite: Callable[..., Path]) -> None:
    [plain] = cases(write_suite())
    changed = {
        "model's key": TINY.replace("enet:", "other:"),
        "dataset's key": TINY.replace("shapes: {", "mine: {name: shapes, "),
        "root": TINY.replace("shapes: {", "shapes: {root: /elsewhere, "),
        "label": TINY.replace("custom/enet}", "custom/enet, label: E}"),
        "suite name": TINY.replace("name: tiny", "name: huge"),
        "evaluations": TINY + "evaluations: {v: {split: test}}\n",
        "reported splits": TINY + "splits: {report: [test]}\n",
        "a default written out": TINY.replace("{size", "{seed: 0, size"),
        "keep": TINY + "keep: none\n",
    }
    for text in changed.values():
        assert cases(write_suite(text))[0].id == plain.id


@pytest.mark.parametrize(
    "setting",
    [
        "recipe.epochs=3",
        "recipe.optimizer.lr=0.002",
        "seeds=[1]",
        "limit=8",
        "datasets.shapes.seed=1",
        "splits.train=test",
        "models.enet.normalize=none",
        "models.enet.arch=custom/fcn",
        "recipe.augment=[]",
    ],
)
def test_what_changes_numbers_is_in_the_id(write_suite: Callable[..., Path], setting: str) -> None:
    assert cases(write_suite(), setting)[0].id != cases(write_suite())[0].id


def test_the_id_does_not_change_with_the_code(write_suite: Callable[..., Path]) -> None:
    """A changed id invalidates everybody's results: raise this only on purpose."""
    changes = {"custom/enet": "smp/unet, encoder: resnet18", "  precision: fp32\n": ""}
    [case] = cases(write_suite(replace=changes))
    first = case.model_copy(update={"numerics_version": 1})  # as in records of the first version
    assert first.id == "6bc1f0f573423be4d525224fea3eae1149b1968e997a84d91cf5312322e5cc90"
    assert case.id == "626761c470c9f48dc13343aead0ed6807c57d6409ec38d0978d19b5ff273282e"


def test_a_field_added_later_is_left_out_at_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    class Before(Frozen):
        a: int = 1

    class After(Before):
        b: int = 2

    assert canonical(After()) == {"a": 1, "b": 2}  # a part that is not listed is hashed whole
    monkeypatch.setitem(FIRST_FIELDS, After, "a")
    assert canonical(After()) == canonical(Before())
    assert canonical(After(b=3)) == {"a": 1, "b": 3}


@pytest.mark.parametrize("part", FIRST_FIELDS, ids=lambda part: part.__name__)
def test_first_fields_exist(part: type[BaseModel]) -> None:
    assert set(FIRST_FIELDS[part].split()) <= part.model_fields.keys()
    assert "json_schema_extra" not in str(part.model_fields)


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.__name__)
def test_options_left_out_of_hashes_exist(dataset: type[Dataset]) -> None:
    fields = dataset.Options.model_fields
    assert {*dataset.unhashed_options, *dataset.later_options} <= fields.keys()
    assert ("partial" in dataset.unhashed_options) == ("partial" in fields)


def test_source_hash_ignores_comments_and_docstrings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("WIDTH = 3\n")
    net = package / "net.py"
    net.write_text("from pkg import parts\n\ndef build(k):\n    return parts.WIDTH * k\n")
    first = source_hash("pkg.net:build")
    net.write_text(
        '"""Doc."""\nfrom pkg import parts  # why\n\n\ndef build(k):\n    "Doc."\n'
        "    return (parts.WIDTH\n            * k)\n"
    )
    assert source_hash("pkg.net:build") == first
    (package / "parts.py").write_text("WIDTH = 4\n")
    changed = source_hash("pkg.net:build")
    assert changed != first
    net.write_text("from . import parts\n\ndef build(k):\n    return parts.WIDTH * k\n")
    (package / "parts.py").write_text("WIDTH = 5\n")
    assert source_hash("pkg.net:build") not in (first, changed)
    assert source_hash("smp/unet") is None


CHAIN = TWO.replace("fcn: {arch: custom/fcn}", "fcn: {arch: custom/enet, init_from: {model: enet}}")


def test_init_from_orders_and_blocks_ids(write_suite: Callable[..., Path]) -> None:
    child, parent = sorted(cases(write_suite(CHAIN)), key=lambda c: c.parent is None)
    assert child.parent is not None
    assert child.parent.id == parent.id
    assert [c.name for c in in_order([child, parent])] == [parent.name, child.name]
    assert {c.name for c in matching([parent, child], "*fcn*")} == {parent.name, child.name}
    assert [c.name for c in matching([parent, child], "*enet*")] == [parent.name]
    longer = cases(write_suite(CHAIN + "overrides: [{model: enet, recipe: {epochs: 5}}]"))
    assert {c.id for c in longer}.isdisjoint({child.id, parent.id})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model: enet", "forms a cycle"),
        ("model: unet", "init_from: Unknown model 'unet'"),
        ("model: enet, seed: 3", "Unknown case 'shapes__enet__default__s3'"),
    ],
)
def test_init_from_faults(write_suite: Callable[..., Path], change: str, message: str) -> None:
    text = TINY.replace("custom/enet}", f"custom/enet, init_from: {{{change}}}}}")
    with pytest.raises(Faults, match=message):
        cases(write_suite(text))


def test_a_case_survives_json(write_suite: Callable[..., Path]) -> None:
    [case] = cases(write_suite())
    again = Case.model_validate(json.loads(case.model_dump_json()))
    assert again == case
    assert again.id == case.id


TWINS = """
name: twins
datasets:
  north: {name: folder, root: north, classes: [a, b]}
  south: {name: folder, root: south, classes: [a, b]}
models:
  fcn: {arch: custom/fcn}
  again: {arch: custom/fcn}
  child: {arch: custom/fcn, init_from: {model: again}}
recipe: {epochs: 1}
"""


def test_a_case_is_known_by_its_name(write_suite: Callable[..., Path]) -> None:
    found = cases(write_suite(TWINS))
    by_id: dict[str, list[str]] = {}
    for case in found:
        by_id.setdefault(case.id, []).append(case.name)
    assert sorted(map(len, by_id.values())) == [2, 4]  # twins share an id
    assert len({case.folder for case in found}) == 6

    def chosen(pattern: str) -> list[str]:
        return [case.name for case in matching(found, pattern)]

    assert chosen("north__fcn__*") == ["north__fcn__default__s0"]
    assert chosen("south__child__*") == ["south__again__default__s0", "south__child__default__s0"]
    names = [case.name for case in in_order(reversed(found))]
    for site in ("north", "south"):
        again, child = (names.index(f"{site}__{m}__default__s0") for m in ("again", "child"))
        assert again < child


def test_names_that_two_cases_would_share_are_refused(write_suite: Callable[..., Path]) -> None:
    text = """
name: clash
datasets:
  a: {name: shapes}
  a__b: {name: shapes, num_train: 4}
models: {b__c: {arch: custom/fcn}, c: {arch: custom/fcn}}
recipe: {epochs: 1}
cases: [{dataset: a, model: b__c}, {dataset: a__b, model: c}]
"""
    with pytest.raises(Faults, match="Two cases would have the name a__b__c__default__s0"):
        cases(write_suite(text))
