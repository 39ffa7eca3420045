"""What README and docs say is true: every command, code block, table and link."""

import fnmatch
import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import bench
from conftest import ROOT
from fixtures import make_camvid
from PIL import Image

from bench.errors import Exit
from bench.suite.columns import COLUMNS
from bench.suite.json_schema import json_schema, markdown
from bench.suite.load import load
from bench.suite.suite import Suite
from bench.suite.tables import USUAL_TABLES
from custom_models import ARCHITECTURES

FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {file.name: file.read_text() for file in FILES}
CI = (ROOT / ".ci" / "run").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m (?:bench|pip|pytest)\b(?:'[^']*'|[^\n`#|>&']|&(?!&))*")
ROWS = re.findall(
    r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \| ([\d][^|]*) \| ([^|]*)\|$",
    TEXTS["models.md"],
    re.MULTILINE,
)

# ---- commands ------------------------------------------------------------------------------

SMALL = (
    "--set datasets.camvid.partial=true --set models.*.weights=null --set recipe.size=[32,32] "
    "--set recipe.epochs=1 --set recipe.batch_size=2 --set recipe.augment=[] --set seeds=[0]"
)
QUICKLY = {  # what the test adds to a command so that it takes seconds
    "bench run street.yaml*": f"{SMALL} --engine in-process",
    "bench report street.yaml": SMALL,
    "bench status street.yaml": SMALL,
    "bench validate street.yaml --deep": f"{SMALL} --root camvid=data/camvid",
    "bench run suites/camvid_small.yaml*": f"{SMALL} --engine in-process --filter *enet*",
    "bench run suites/camvid_all.yaml*": f"{SMALL} --engine in-process --filter *__enet__*",
    "bench baseline save suites/camvid_all.yaml*": f"{SMALL} --filter *__enet__*",
    "bench data check camvid*": "--set partial=true",
    "bench data show camvid*": "--set partial=true",
    "bench profile suites/complexity.yaml": "--filter voc2012__enet__*",
}
ELSEWHERE = {
    "python -m bench data get camvid --root data/camvid": (
        "tests/datasets/tools/test_download.py",
        "test_what_is_fetched_can_be_read",
    )
}


def commands() -> list[str]:
    """List the commands in the docs, each once."""
    found = []
    for text in TEXTS.values():
        joined = text.replace("\\\n", " ")
        found += [" ".join(one.split()) for one in COMMAND.findall(joined)]
    return [one for one in dict.fromkeys(found) if one != "python -m bench"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands name."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("suites", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    published = ROOT / "results" / "published"
    (folder / "results").mkdir()
    (folder / "results" / "published").symlink_to(published)
    shutil.copytree(ROOT / "results" / "baselines", folder / "results" / "baselines")
    for copy in ("results/camvid_small", "lab_a/voc_all", "lab_b/voc_all"):
        shutil.copytree(published / "camvid_small", folder / copy)
    make_camvid(folder / "data" / "camvid")
    [street] = [b for _, b in BLOCK.findall(TEXTS["README.md"]) if b.startswith("name: street")]
    (folder / "street.yaml").write_text(street)
    (folder / "my_package").mkdir()
    for _, block in BLOCK.findall(TEXTS["adding.md"]):
        named = re.match(r"# my_package/(\w+\.py)", block)
        if named:
            (folder / "my_package" / named[1]).write_text(block)
    return folder


def test_there_are_commands() -> None:
    assert len(commands()) > 30


def test_every_command_shown(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run them in order: some use the results of others."""
    monkeypatch.syspath_prepend(place)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    for command in commands():
        if command in CI:
            continue  # CI runs it unchanged in a fresh environment
        if command in ELSEWHERE:
            file, name = ELSEWHERE[command]
            assert f"def {name}(" in (ROOT / file).read_text()
            continue
        text = command.removeprefix("python -m ")
        for pattern, more in QUICKLY.items():
            if fnmatch.fnmatchcase(text, pattern):
                text += f" {more}"
        text = text.replace("=PATH", "=data/camvid").replace("=/data/camvid", "=data/camvid")
        args = shlex.split(text.replace("/tmp/tables", str(tmp_path)))[1:]
        print(command)
        bench(*args, cwd=place)


def test_lines_for_github_actions_are_a_workflow() -> None:
    [block] = [b for _, b in BLOCK.findall(TEXTS["README.md"]) if "pull_request" in b]
    workflow = yaml.safe_load(block)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all("run" in step or "uses" in step for step in steps)
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    assert any("--gate | tee" in step.get("run", "") for step in steps)
    assert workflow["defaults"]["run"]["shell"] == "bash"  # pipefail: tee must not hide a failure


# ---- blocks, tables, links -----------------------------------------------------------------

BASE: dict[str, Any] = {
    "name": "base",
    "datasets": {"camvid": {}, "shapes": {}},
    "models": {"mine": {"arch": "my_package.nets:build"}, "enet": {"arch": "custom/enet"}},
    "recipe": {"epochs": 1},
}
PARTS = [
    pytest.param(block, id=f"{name}-{i}")
    for name, text in TEXTS.items()
    for i, (kind, block) in enumerate(BLOCK.findall(text))
    if kind == "yaml" and set(yaml.safe_load(block)) <= set(Suite.model_fields)
]


@pytest.mark.parametrize("block", PARTS)
def test_every_part_of_a_suite_is_valid(
    block: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    (place / "common.yaml").write_text("seeds: [0]\n")
    part = yaml.safe_load(block)
    whole = BASE | part
    for key in ("datasets", "models"):
        whole[key] = BASE[key] | part.get(key, {})
    file = place / "part.yaml"
    file.write_text(json.dumps(whole))
    assert load(file).suite.name


def test_a_users_own_dataset_and_network_train(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    for split, num in (("train", 4), ("val", 2)):
        folder = place / "data" / "cells" / "fold1" / split
        folder.mkdir(parents=True)
        for i in range(num):
            mask = np.eye(32, dtype=np.uint8)
            Image.fromarray(mask).save(folder / f"{i}_mask.png")
            Image.fromarray(np.stack([200 * mask, mask + i, mask], -1)).save(folder / f"{i}.png")
    blocks = [yaml.safe_load(b) for kind, b in BLOCK.findall(TEXTS["adding.md"]) if kind == "yaml"]
    parts = {key: part for block in blocks[:2] for key, part in block.items()}
    suite = {"name": "own", "recipe": {"epochs": 1, "batch_size": 2}} | parts
    (place / "own.yaml").write_text(json.dumps(suite))
    args = ["own.yaml", "--out", "own", "--device", "cpu", "--engine", "in-process"]
    assert "cells__mine__default__s0: ok" in bench("run", *args, cwd=place).stdout


def test_the_reference_is_that_of_the_schema() -> None:
    assert TEXTS["suite-reference.md"] == markdown(json_schema()) + "\n"
    assert not re.search(r"^\| `(?!name`)\w+` \|.*\|  \|$", TEXTS["suite-reference.md"], re.M)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXTS[name]):
        assert link.startswith("http") or (folder / link).exists(), link


def test_every_exit_code_is_listed() -> None:
    listed = TEXTS["README.md"].split("Exit codes of `run`")[1].split("\n\n")[0]
    for code in set(map(int, Exit)):
        assert re.search(rf"\b{code} [a-z*]", listed), code


def test_every_document_is_linked_from_the_readme() -> None:
    assert not [file.name for file in FILES[1:] if f"docs/{file.name}" not in TEXTS["README.md"]]


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


def test_docs_name_every_column_and_kind_of_table() -> None:
    text = TEXTS["reports.md"] + TEXTS["metrics.md"]
    assert not [name for name in (*COLUMNS, *USUAL_TABLES) if f"`{name}`" not in text]
