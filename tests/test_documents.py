"""The suites of the five documents and of every architecture are complete, valid and run."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from commands import bench
from conftest import ROOT
from fixtures import make_cityscapes, make_idd, make_voc, make_voc_aug

from bench.loading.resize import resize_image, resize_target
from bench.loading.transforms import Augment, build_transform
from bench.records.record import read_record
from bench.runner.validate import check, load_checked, missing_files
from bench.suite.case import Case
from bench.suite.columns import column
from bench.suite.expand import expand
from bench.suite.load import load
from bench.suite.schema import sized
from bench.suite.suite import Suite
from bench.text import plural

DOCUMENTS = {file.stem: file for file in sorted((ROOT / "suites" / "documents").glob("*.yaml"))}
FILES = DOCUMENTS | {
    name: ROOT / "suites" / f"{name}.yaml" for name in ("voc_all", "cityscapes_all", "idd_all")
}
NUM_CASES = {  # systems in each document's tables; models in the others
    "darrennet-voc2007": 10,
    "enet-r2unet-pspnet": 3,
    "fcn-idd": 7,
    "fcn-resnet50-voc2007": 7,
    "fcn8s-voc": 1,
    "voc_all": 29,
    "cityscapes_all": 29,
    "idd_all": 29,
}
FROZEN = ("resnet50", "deeplabv3-deconv")  # models whose encoders need weights
SIZES = {  # (H, W) of stored images
    "voc": ((375, 500), (500, 333)),
    "voc2012": ((375, 500), (500, 333)),
    "cityscapes": ((1024, 2048),),
    "idd": ((1080, 1920), (720, 1280)),
}
DATA: dict[str, Callable[[Path], Path]] = {
    "voc2007": lambda root: make_voc(root, "2007"),
    "voc2012": make_voc,
    "voc2012_aug": make_voc_aug,
    "cityscapes": make_cityscapes,
    "idd": make_idd,
}
IMAGE = "miou_image_absent_0_void_background"
BATCH = "miou_batch_void_background"
SKY = "iou/sky/fallback background"


@pytest.fixture(autouse=True)
def _nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's own data and weights."""
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.delenv("BENCH_WEIGHTS", raising=False)


def suite_of(name: str) -> Suite:
    return load(FILES[name], check_transform=build_transform).suite


def case_of(name: str, label: str) -> Case:
    [case] = [case for case in expand(suite_of(name)) if case.label == label]
    return case


def run_small(name: str, tmp_path: Path, side: int = 64) -> int:
    """Train a suite's cases for one epoch on two small images; return how many succeed."""
    suite = suite_of(name)
    settings = ["recipe.epochs=1", "recipe.batch_size=2", "recipe.accumulate=1", "keep=none"]
    settings += [f"recipe.size=[{side},{side}]", "recipe.augment=[]", "models.*.weights=null"]
    settings += [f"models.{key}.freeze_encoder=false" for key in FROZEN if key in suite.models]
    if suite.evaluations:
        settings += ["evaluations.*.size=[64,64]", "evaluations.*.crop=[48,48]"]
    args: list[object] = ["--limit", 2, "--device", "cpu", "--engine", "in-process"]
    args += ["--loader-workers", 0, "--cache", "none"]
    for key, spec in suite.datasets.items():
        args += ["--root", f"{key}={DATA[spec.name](tmp_path / key)}"]
        settings.append(f"datasets.{key}.partial=true")
    for setting in settings:
        args += ["--set", setting]
    bench("run", FILES[name], "--out", tmp_path / "out", *args)
    folders = [file.parent for file in (tmp_path / "out").glob("*/*/record.json")]
    statuses = [record.status for record in map(read_record, folders) if record is not None]
    assert set(statuses) == {"ok"}
    return len(statuses)


def test_every_suite_is_counted() -> None:
    assert set(FILES) == set(NUM_CASES)


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_a_case(name: str) -> None:
    suite = suite_of(name)
    cases = expand(suite)
    assert suite.name == name
    assert len(cases) == NUM_CASES[name]
    assert len({case.label for case in cases}) == len(cases)
    assert len({case.id for case in cases}) == len(cases)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reported_figure_is_of_one_case(name: str) -> None:
    suite = suite_of(name)
    names = [case.name for case in expand(suite)]
    assert suite.reported
    told = []
    for item in suite.reported:
        [of] = [one for one in names if fnmatchcase(one, item.case)]
        assert item.source.startswith(f"{name}, ")
        told += [(of, item.split, figure) for figure in item.values]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_table_shows_what_is_reported(name: str) -> None:
    suite = suite_of(name)
    names = [case.name for case in expand(suite)]
    shown = {one.of for table in suite.tables.values() for one in table.columns}
    assert {figure for item in suite.reported for figure in item.values} <= shown
    for table in suite.tables.values():
        assert any(fnmatchcase(one, table.cases) for one in names)
        assert all(column(one.of).title for one in table.columns)


@pytest.mark.parametrize("name", ["darrennet-voc2007", "fcn-resnet50-voc2007"])
def test_what_has_void_as_background_says_so(name: str) -> None:
    suite = suite_of(name)
    assert suite.datasets["voc"].options["void"] == "ignore"
    for item in suite.reported:
        assert all(figure.endswith("_void_background") for figure in item.values)
        assert item.not_comparable is not None
        assert "void as background" in item.not_comparable or "labels lost" in item.not_comparable


@pytest.mark.parametrize(
    ("name", "label", "split", "figure", "value"),
    [
        ("darrennet-voc2007", "FCN baseline", "test", BATCH, 0.06),
        ("darrennet-voc2007", "FCN + class weights", "test", BATCH, 0.04),
        ("darrennet-voc2007", "DarrenNet", "test", "pixel_accuracy_void_background", 0.75),
        ("darrennet-voc2007", "DarrenNet transfer + affine", "test", BATCH, 0.15),
        ("darrennet-voc2007", "U-Net", "test", "pixel_accuracy_void_background", 0.55),
        ("fcn-idd", "Transfer learning", "val", "miou_no_unlabeled", 0.4370),
        ("fcn-idd", "Rotation", "val", "pixel_accuracy", 0.8041),
        ("fcn-idd", "Mirror flip", "val", "iou/car", 0.2262),
        ("fcn-idd", "Custom", "val", "iou/sidewalk", 0.0002),
        ("fcn-idd", "Weighted loss", "val", SKY, 0.9472),
        ("enet-r2unet-pspnet", "ENet", "train", "sensitivity", 0.2935),
        ("enet-r2unet-pspnet", "ENet", None, "epoch_s", 4 * 60 + 5),
        ("enet-r2unet-pspnet", "R2UNet", "val", "miou", 0.3312),
        ("enet-r2unet-pspnet", "R2UNet", None, "epoch_s", 20 * 60 + 36),
        ("enet-r2unet-pspnet", "PSPNet", "val", "loss", 0.1466),
        ("enet-r2unet-pspnet", "PSPNet", None, "checkpoint_mb", 411.9),
        ("enet-r2unet-pspnet", "PSPNet", None, "epoch_s", 15 * 60 + 52),
        ("fcn8s-voc", "FCN-8s", "val", "miou", 0.4225),
        ("fcn-resnet50-voc2007", "U-Net", "val", IMAGE, 0.0358),
        ("fcn-resnet50-voc2007", "+ cosine annealing", "val", IMAGE, 0.0612),
        ("fcn-resnet50-voc2007", "ResNet-50 transfer", "val", IMAGE, 0.157),
    ],
)
def test_reported_values(
    name: str, label: str, split: str | None, figure: str, value: float
) -> None:
    case = case_of(name, label)
    [item] = [
        item
        for item in suite_of(name).reported
        if fnmatchcase(case.name, item.case) and item.split == split and figure in item.values
    ]
    assert item.values[figure] == value


def test_a_row_without_figures_has_none() -> None:
    case = case_of("darrennet-voc2007", "DarrenNet transfer + augmentation")
    reported = suite_of("darrennet-voc2007").reported
    assert not [item for item in reported if fnmatchcase(case.name, item.case)]


@pytest.mark.parametrize(
    ("name", "label", "epochs", "batch", "lr", "schedule", "weights"),
    [
        ("darrennet-voc2007", "FCN baseline", 20, 16, 1e-3, "constant", None),
        ("darrennet-voc2007", "FCN + augmentation", 20, 16, 1e-3, "cosine", None),
        ("darrennet-voc2007", "FCN + class weights", 20, 16, 1e-3, "constant", "enet"),
        ("darrennet-voc2007", "DarrenNet", 50, 16, 5e-4, "cosine", "enet"),
        ("darrennet-voc2007", "DarrenNet transfer + affine", 50, 16, 5e-4, "cosine", "enet"),
        ("darrennet-voc2007", "U-Net", 50, 16, 1e-3, "constant", "enet"),
        ("darrennet-voc2007", "U-Net transfer", 50, 16, 1e-4, "constant", None),
        ("fcn-idd", "Baseline", 20, 4, 1e-4, "constant", None),
        ("fcn-idd", "Weighted loss", 20, 4, 1e-4, "constant", "one_minus_frequency"),
        ("fcn-idd", "Custom", 20, 1, 1e-4, "constant", None),
        ("fcn-idd", "Transfer learning", 7, 2, 1e-4, "constant", None),
        ("fcn-idd", "U-Net", 20, 1, 1e-4, "constant", None),
        ("enet-r2unet-pspnet", "ENet", 80, 8, 0.01, "poly", None),
        ("enet-r2unet-pspnet", "PSPNet", 80, 3, 0.01, "poly", None),
        ("fcn-resnet50-voc2007", "FCN baseline", 500, 16, 1e-4, "constant", None),
        ("fcn-resnet50-voc2007", "+ weighted loss", 500, 16, 1e-4, "cosine", "inverse"),
        ("fcn-resnet50-voc2007", "U-Net", 500, 16, 1e-4, "constant", None),
    ],
)
def test_recipes(
    name: str,
    label: str,
    epochs: int,
    batch: int,
    lr: float,
    schedule: str,
    weights: str | None,
) -> None:
    recipe = case_of(name, label).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (epochs, batch, lr)
    assert recipe.schedule.name == schedule
    assert recipe.loss.name == "cross_entropy"
    assert recipe.loss.class_weights == weights


def test_only_what_the_cases_use_is_missing() -> None:
    data = {
        "name": "x",
        "datasets": {"shapes": {}, "camvid": {}},
        "models": {"camvid": {"arch": "custom/fcn"}},
        "recipe": {"epochs": 1},
    }
    file = load(data)
    shapes, camvid = file.cases()
    assert list(missing_files(file.suite, [shapes], {})) == []
    assert list(missing_files(file.suite, [camvid], {})) == ["camvid data not found"]


@pytest.mark.parametrize("name", FILES)
def test_images_of_a_batch_have_one_size(name: str) -> None:
    for case in {case.recipe_name: case for case in expand(suite_of(name))}.values():
        augment, shapes = Augment(case.recipe.augment), set()
        for stored in SIZES[case.dataset_name]:
            pair = np.full((*stored, 3), 128, np.uint8), np.ones(stored, np.uint8)
            for draw in range(3):
                size = sized(case.recipe.size, *stored)
                resized = resize_image(pair[0], size), resize_target(pair[1], size)
                image, mask = augment(resized, (draw,))
                assert image.shape[:2] == mask.shape
                assert set(np.unique(mask)) <= {1, 255}  # padding is void
                shapes.add(mask.shape)
        assert len(shapes) == 1 or case.recipe.batch_size == 1, case.name


@pytest.mark.parametrize(
    ("name", "num_params"),
    [
        ("enet-r2unet-pspnet", {"ENet": 364_441, "R2UNet": 39_092_563, "PSPNet": 51_444_710}),
        ("fcn-idd", {"Baseline": 5_500_443, "Custom": 41_601_691, "Transfer learning": 62_691_440}),
        ("fcn8s-voc", {"FCN-8s": 134_489_759}),
    ],
)
def test_networks_are_the_documents(name: str, num_params: dict[str, int]) -> None:
    """Check without data and weight files, as `bench validate` does."""
    file = load_checked(FILES[name])
    cases = [case for case in expand(file.suite) if case.label in num_params]
    checked = check(file, cases, {}, need_data=False)
    assert {c.label: checked[c.name].facts.num_params for c in cases} == num_params


def test_a_document_runs_end_to_end(tmp_path: Path) -> None:
    assert run_small("fcn-resnet50-voc2007", tmp_path, side=32) == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_suite_is_planned_without_data(name: str, tmp_path: Path) -> None:
    args = [FILES[name], "--out", tmp_path / "out", "--device", "cpu"]
    shown = bench("run", "--dry-run", *args).stdout
    assert f"\n{name}: {plural(NUM_CASES[name], 'case')} in {tmp_path}" in shown
    assert " data not found." in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_suite_runs_end_to_end(name: str, tmp_path: Path) -> None:
    assert run_small(name, tmp_path) == NUM_CASES[name]
