"""`bench data`, called as a user does."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import bench
from conftest import ROOT
from fixtures import make_camvid, make_folder
from PIL import Image

from bench.errors import Exit

SUITE = """
name: street
datasets: {camvid: {partial: true}}
models: {enet: {arch: custom/enet}}
recipes:
  plain: {epochs: 1, batch_size: 1}
  strong: {epochs: 1, batch_size: 1, augment: [{affine: {degrees: 45}}]}
splits: {train: train, select: val, report: [val]}
"""


def data(*args: object, code: int = 0, cwd: Path = ROOT, **env: str) -> str:
    done = bench("data", *args, code=code, cwd=cwd, **env)
    return done.stdout + done.stderr


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return make_camvid(tmp_path / "camvid")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "street.yaml"
    file.write_text(SUITE)
    return file


def test_check_by_name(camvid: Path) -> None:
    out = data("check", "camvid", "--root", camvid, "--set", "partial=true")
    assert "CamVid (SegNet split, 11 classes) at" in out
    assert "train (3)" in out
    assert "train: 3 images; the official split has 367 (accepted by partial: true)." in out
    assert out.endswith("No findings in 6 images.\n")


def test_check_finds(camvid: Path) -> None:
    (camvid / "train/a1.png").write_bytes(b"")
    out = data("check", "camvid", "--root", f"camvid={camvid}", code=Exit.NEGATIVE)
    assert "unreadable file (1)\n  train: Cannot decode " in out
    assert "split size (3)\n  train: 3 images; the official split has 367" in out
    assert out.endswith("4 findings in 6 images.\n")


def test_check_refuses_an_unknown_split() -> None:
    out = data("check", "shapes", "--split", "vall", code=Exit.USAGE)
    assert "Unknown split 'vall'. Did you mean 'val'?" in out


def test_check_as_json(camvid: Path) -> None:
    (camvid / "val/a1.png").unlink()
    args = ("check", "camvid", "--root", camvid, "--set", "partial=true", "--json")
    report = json.loads(data(*args, code=Exit.NEGATIVE))
    [finding] = report["findings"]
    assert finding["kind"] == "missing file"
    assert finding["split"] == "val"
    assert report["splits"]["train"]["images"] == 3
    sky = report["splits"]["train"]["classes"]["sky"]
    masks = [np.array(Image.open(camvid / f"trainannot/a{i}.png")) for i in range(3)]
    assert sky == {"pixels": sum(int((mask == 0).sum()) for mask in masks), "images": 3}


def test_check_a_suite(camvid: Path, suite: Path) -> None:
    (camvid / "test/a0.png").unlink()  # its split is not used by the suite
    out = data("check", suite, "--root", f"camvid={camvid}")
    assert "train (3)    val (2)\n" in out
    assert out.endswith("No findings in 5 images.\n")
    (camvid / "val/a0.png").unlink()
    out = data("check", suite, "--root", f"camvid={camvid}", code=Exit.NEGATIVE)
    assert "missing file (1)\n  val: No file val/a0.png." in out


def test_check_a_folder(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine", [[0, 255], [255, 0]])
    args = ("check", "folder", "--root", root, "--set", "classes=[background, cell]")
    out = data(*args, code=Exit.NEGATIVE)
    assert "0/255 mask (4)" in out
    assert "set binary: true" in out
    out = data(*args, "--set", "binary=true", code=Exit.NEGATIVE)
    assert "0/255 mask" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check", "camvd"], "Unknown dataset 'camvd'. Did you mean 'camvid'"),
        (["check", "camvid", "--root", "gone"], "No folder gone for dataset 'camvid'"),
        (["check", "camvid"], "has no folder. Give --root camvid=PATH"),
        (["check", "folder", "--root", "."], "classes: The key 'classes' is required"),
        (["check", "camvid", "--set", "partal=1"], "Unknown key 'partal'. Did you mean 'partial'"),
        (["check", "camvid", "--set", "partial"], "--set takes NAME=VALUE"),
        (["check", "gone.yaml"], "gone.yaml"),
        (["get", "camvd", "--root", "x"], "Did you mean 'camvid'"),
        (["get", "camvid"], "Give a folder: --root PATH"),
        (["prepare", "camvid", "--root", "x"], "Only idd needs preparing"),
        (["prepare", "idd", "--root", "gone"], r"No *_gtFine_polygons.json below gone"),
        (["show", "camvid", "--recipe", "x"], "--recipe names a recipe of a suite; give --suite"),
    ],
)
def test_usage(args: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    assert message in data(*args, code=Exit.USAGE)


def test_get_says_where_registered_sets_come_from(tmp_path: Path) -> None:
    out = data("get", "cityscapes", "--root", tmp_path)
    assert "https://www.cityscapes-dataset.com/login/" in out
    assert f"{tmp_path}/leftImg8bit" in out
    assert "bench data prepare idd" in data("get", "idd", "--root", tmp_path)


def test_get_knows_what_is_there(shared: Path) -> None:
    root = shared / "data" / "camvid"
    assert f"camvid is already at {root}." in data("get", "camvid", "--root", root)


def test_prepare_draws_masks(tmp_path: Path) -> None:
    frame = {"imgHeight": 4, "imgWidth": 6, "objects": []}
    frame["objects"] = [{"label": "road", "polygon": [[0, 2], [5, 2], [5, 3], [0, 3]]}]
    folder = tmp_path / "gtFine" / "train" / "0"
    folder.mkdir(parents=True)
    (folder / "frame1_gtFine_polygons.json").write_text(json.dumps(frame))
    args = ("prepare", "idd", "--root", tmp_path, "--workers", "1")
    assert "1 mask made, 0 kept, 0 failed." in data(*args)
    mask = np.array(Image.open(folder / "frame1_gtFine_labellevel3Ids.png"))
    assert mask.tolist() == [[255] * 6, [255] * 6, [0] * 6, [0] * 6]
    assert "0 masks made, 1 kept, 0 failed." in data(*args)
    (folder / "frame2_gtFine_polygons.json").write_text("{")
    assert "frame2_gtFine_polygons.json" in data(*args, code=Exit.NEGATIVE)


def test_show(camvid: Path, suite: Path, tmp_path: Path) -> None:
    plain = ("show", "camvid", "--root", camvid, "--set", "partial=true")
    assert "Wrote camvid_train.png" in data(*plain, cwd=tmp_path)
    assert np.array(Image.open(tmp_path / "camvid_train.png")).shape[1] > 400
    args = ("show", "camvid", "--root", camvid, "--suite", suite)
    sheets = []
    for recipe in ("plain", "strong"):
        out = tmp_path / f"{recipe}.png"
        data(*args, "--recipe", recipe, "--out", out)
        sheets.append(np.array(Image.open(out)))
    again = tmp_path / "again.png"
    data(*args, "--recipe", "strong", "--out", again)
    assert np.array_equal(np.array(Image.open(again)), sheets[1])
    assert not np.array_equal(*sheets)
    message = data(*args, "--recipe", "stron", "--out", again, code=Exit.USAGE)
    assert "Unknown recipe 'stron'. Did you mean 'strong'" in message


def test_show_names_the_line_of_a_case_that_is_listed_twice(camvid: Path, suite: Path) -> None:
    row = "  - {dataset: camvid, model: enet, recipe: plain}\n"
    suite.write_text(f"{SUITE}cases:\n{row}{row}")
    out = data("show", "camvid", "--suite", suite, "--root", camvid, code=Exit.USAGE)
    assert out == (f"Error: {suite}:11: cases.1: Case camvid__enet__plain__s0 is given twice.\n")


def test_cache_lists_and_clears(camvid: Path, suite: Path, tmp_path: Path) -> None:
    cache = {"BENCH_CACHE": str(tmp_path / "cache")}
    assert "0 decoded splits, 0.0 MB, in" in data("cache", **cache)
    args = ["--filter", "*plain*", "--set", "recipe.epochs=2", "--set", "recipe.size=[64,64]"]
    args += ["--out", tmp_path / "out", "--device", "cpu", "--cache", "disk", "--engine"]
    bench("run", suite, "--root", f"camvid={camvid}", *args, "in-process", **cache)
    out = data("cache", **cache)
    assert "camvid train, 3 images, 64x64" in out
    assert "camvid val, 2 images, 64x64" in out
    assert "Removed 3 decoded splits" in data("cache", "--clear", **cache)
    assert "0 decoded splits, 0.0 MB" in data("cache", **cache)


def test_help_needs_nothing_heavy() -> None:
    out = data("--help")
    for command in ("get", "prepare", "check", "show", "cache"):
        assert command in out
