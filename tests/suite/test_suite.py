import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, TINY

from bench.errors import Fault, UserError
from bench.loading.transforms import build_transform
from bench.suite import yaml_file
from bench.suite.json_schema import json_schema
from bench.suite.load import load
from bench.suite.loss import CrossEntropy
from bench.suite.optimizer import Poly

SUITES = sorted((ROOT / "suites").rglob("*.yaml"))


def faults(file: Path, *settings: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(file, settings, check_transform=build_transform)
    return str(caught.value).splitlines()


def test_the_tiny_suite(write_suite: Callable[..., Path]) -> None:
    suite = load(write_suite()).suite
    assert suite.datasets["shapes"].options["size"] == [32, 32]
    assert suite.datasets["shapes"].options["num_test"] == 40
    assert suite.all_recipes["default"].optimizer.lr == 1e-3
    assert suite.all_recipes["default"].loss == CrossEntropy()
    assert list(suite.scored) == ["val", "train"]


def test_all_faults_at_once(write_suite: Callable[..., Path]) -> None:
    file = write_suite(
        """\
name: wrong
datasets:
  shapes: {sizee: [32, 32]}
  vocc2012: {}
models:
  a: {arch: smp/unett}
  b: {arch: smp/unet, encoder: resnet81}
recipe:
  epoch: 3
  accumulate: true
  batch_size: -1
  batch_size: 4
  optimizer: {name: adm}
  schedule: {name: poly, powr: 1}
  augment: [{HorizontalFlp: {}}, {HorizontalFlip: {pp: 1}}]
splits: {report: []}
exclud: []
exclude: [{model: c}]
"""
    )
    found = faults(file)
    expected = [
        (3, "Unknown key 'sizee'. Did you mean 'size'"),
        (4, "Unknown dataset 'vocc2012'. Did you mean 'voc2012'"),
        (6, "Unknown model 'smp/unett'. Did you mean 'smp/unet'"),
        (7, "Unknown encoder 'resnet81'. Did you mean 'resnet18'"),
        (9, "Unknown key 'epoch'. Did you mean 'epochs'"),
        (10, "accumulate: Give a number, not true."),
        (11, "batch_size: Input should be greater than 0, not -1."),
        (12, "Duplicate key 'batch_size', first given in line 11"),
        (13, "Unknown optimizer 'adm'. Did you mean 'adam'"),
        (14, "Unknown key 'powr'. Did you mean 'power'"),
        (15, "Unknown transform 'HorizontalFlp'. Did you mean 'HorizontalFlip'"),
        (15, "Unknown argument of HorizontalFlip 'pp'. Did you mean 'p'"),
        (16, "splits.report"),
        (17, "Unknown key 'exclud'. Did you mean 'exclude'"),
        (18, "'c' matches nothing. Unknown model 'c'. Known: a, b."),
    ]
    for line, message in expected:
        assert any(f"suite.yaml:{line}: " in f and message in f for f in found), (line, message)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 2", "epochs: 2\n  steps: 5", "either epochs or steps"),
        ("batch_size: 4", "batch_size: 4\n  accumulate: 3", "accumulate must divide it"),
        ("recipe:", "exclude: [{model: unet}]\nrecipe:", "'unet' matches nothing"),
        ("recipe:", "cases: [{dataset: shapes, model: enett}]\nrecipe:", "Did you mean 'enet'"),
        ("recipe:", "splits: {select: valid}\nrecipe:", "Unknown split 'valid'. Did you mean"),
        ("recipe:", "tables: {t: {columns: [mio]}}\nrecipe:", "Did you mean 'miou'"),
        ("recipe:", "seeds: [1, 1]\nrecipe:", "A seed is given twice"),
        ("recipe:", "overrides: [{model: enet, recipe: {lr: 1}}]\nrecipe:", "Unknown key 'lr'"),
        ("recipe:", "keep: weight\nrecipe:", "Unknown keep 'weight'. Did you mean 'weights'"),
        ("{arch: custom/enet}", "{arch: custom/enet, weights: 5}", "Give null, a name, a file"),
        ("{arch: custom/enet}", "null", "models.enet"),
        ("custom/enet}", "enet}", "Unknown model 'enet'. Did you mean custom/enet?"),
        ("custom/enet}", "UNet}", "Did you mean custom/unet or smp/unet?"),
        ("custom/enet}", "custom/enet, weights: {model: /tmp}}", "/tmp is a folder; give a file"),
        ("custom/enet}", "timm/resnet5}", "Did you mean 'timm/resnet50'"),
        ("custom/enet}", "torchvision/deeplab_resnet50}", "Did you mean"),
        ("custom/enet}", "custom/resnet_fcn, encoder: resnt50}", "Did you mean 'resnet50'"),
        (
            "custom/enet}",
            "custom/enet, init: xaver}",
            "Unknown init 'xaver'. Did you mean 'xavier'",
        ),
        ("custom/enet}", "custom/enet, init: xavier, weights: w.pth}", "fill the whole model"),
        ("recipe:", "recipe:\n  memory: checkpoints", "Did you mean 'checkpoint'"),
        (
            "recipe:",
            "reported: [{case: x, values: {miou: 0.5}, source: y}]\nrecipe:",
            "Give the split",
        ),
        ("enet: {arch: custom/enet}", "'a/b': {arch: custom/enet}", "A name has letters, digits"),
        ("recipe:", "splits: {train: [train, val]}\nrecipe:", "splits.train: "),
        ("enet: {arch: custom/enet}", "7: {arch: custom/enet}\nexclude: [{model: x}]", "models"),
        ("name: tiny", "nam: tiny", "The key 'name' is required"),
        ("adam, lr: 1e-3", "adam, lr: .nan", "finite number"),
    ],
)
def test_faults(
    write_suite: Callable[..., Path], tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    assert any(message in fault for fault in faults(write_suite(replace={old: new})))


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "5\n"])
def test_a_file_that_is_no_suite(write_suite: Callable[..., Path], text: str) -> None:
    assert "a suite is keys and values" in faults(write_suite(text))[0]


def test_settings_win_over_file_and_overrides(write_suite: Callable[..., Path]) -> None:
    text = TINY + "overrides:\n  - {model: enet, recipe: {batch_size: 2}}\n"
    file = load(write_suite(text), ["recipe.batch_size=8", "seeds=[1,2]", "limit=0.5"])
    assert file.suite.overrides[-1].recipe == {"batch_size": 8}
    assert file.suite.seeds == (1, 2)
    assert file.suite.limit == 0.5


def test_a_star_stands_for_every_key(write_suite: Callable[..., Path]) -> None:
    text = TINY.replace("enet: {", "fcn: {arch: custom/fcn}\n  enet: {")
    suite = load(write_suite(text), ["models.*.normalize=none"]).suite
    assert [model.normalize for model in suite.models.values()] == ["none", "none"]
    assert "* matches no key" in faults(write_suite(), "nothing.*.x=1")[0]


def test_a_wrong_setting_is_named(write_suite: Callable[..., Path]) -> None:
    assert "--set recipe.epoch=3: " in faults(write_suite(), "recipe.epoch=3")[0]
    assert "--set takes NAME=VALUE" in faults(write_suite(), "recipe.epochs")[0]


def test_named_recipes_start_from_the_one(write_suite: Callable[..., Path]) -> None:
    text = TINY + "recipes:\n  plain: {augment: []}\n  long: {epochs: 9, schedule: poly}\n"
    suite = load(write_suite(text)).suite
    assert suite.all_recipes["plain"].epochs == 2
    assert suite.all_recipes["plain"].augment == ()
    assert suite.all_recipes["long"].schedule == Poly()
    assert suite.all_recipes["long"].augment == ({"HorizontalFlip": {"p": 0.5}},)


def test_steps_replace_epochs_in_a_change(write_suite: Callable[..., Path]) -> None:
    text = TINY + "overrides: [{recipe: {steps: 7, optimizer: {name: sgd}}}]\n"
    assert load(write_suite(text)).suite.overrides[0].recipe["steps"] == 7


def test_place_of_later_faults(write_suite: Callable[..., Path]) -> None:
    file = load(write_suite())
    error = file.error([Fault(("models", "enet"), "does not build")])
    assert str(error).endswith("suite.yaml:7: models.enet: does not build")


def test_weights_are_found_and_hashed(
    write_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "e.pth").write_bytes(b"x")
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path / "w"))
    file = write_suite(replace={"custom/enet}": "custom/enet, weights: e.pth}"})
    weights = load(file).suite.models["enet"].weights
    assert weights is not None
    assert weights.part == "model"
    assert weights.file == tmp_path / "w" / "e.pth"
    assert "file" not in weights.model_dump()
    assert weights.sha256 == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


@pytest.mark.parametrize("file", SUITES, ids=lambda f: f.stem)
def test_shipped_suites_say_what_to_expect(file: Path) -> None:
    head = file.read_text().split("name:")[0]
    name = re.escape(file.relative_to(ROOT).as_posix())
    assert re.search(rf"python -m bench (run|profile) {name}", head)
    assert "Expected time:" in head
    assert "Expected result:" in head


@pytest.mark.parametrize("file", SUITES, ids=lambda f: f.stem)
def test_the_schema_accepts_the_shipped_suites(file: Path) -> None:
    checker = jsonschema.Draft202012Validator(json_schema())
    assert [fault.message for fault in checker.iter_errors(yaml_file.read(file).data)] == []


def test_the_schema_refuses_what_loading_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "datasets": {}, "models": {}}, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "recipe": {"epoch": 1}}, json_schema())


def test_a_named_recipe_changes_part_of_a_loss_given_by_name(
    write_suite: Callable[..., Path],
) -> None:
    text = TINY.replace("recipe:", "recipe:\n  loss: cross_entropy")
    text += "recipes: {weighted: {loss: {class_weights: enet}}}\n"
    loss = load(write_suite(text)).suite.all_recipes["weighted"].loss
    assert loss == CrossEntropy(class_weights="enet")


def test_settings_of_recipes_go_over_overrides_whatever_their_order(
    write_suite: Callable[..., Path],
) -> None:
    overrides = "overrides=[{model: enet, recipe: {epochs: 9}}]"
    suite = load(write_suite(), ["recipe.epochs=1", overrides]).suite
    assert [override.recipe["epochs"] for override in suite.overrides] == [9, 1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.epochs=true", "Give a number, not true"),
        ("recipe.optimizer.lr=false", "Give a number, not false"),
        ("recipe.augment=[{flip: {horizontal: true}}]", None),
        ("recipe.freeze_encoder=1", None),  # 1 is true for pydantic, and means it
        ("seeds=[0, true]", "Give a number, not true"),
        ("reported=[{case: '*', split: val, values: {miou: true}, source: x}]", "not true"),
        ("datasets.shapes.num_train=true", "Give a number, not true"),
        ("datasets.shapes.size=[true, 8]", "Give a number, not true"),
        ("recipe.size=256", r"^--set recipe.size=256: Give \[H, W\], .* not 256\.$"),
        ("recipe.size=[3]", r"Give \[H, W\], {longest: pixels} or {shortest: pixels}, not \[3\]"),
        ("recipe.size={shortest: 384}", None),
        ("recipe.size={shortest:384}", "a space is missing after the colon: shortest: 384"),
        ("evaluations.x={split: val, size: big}", r"Give \[H, W\].* not 'big'"),
        ("seeds=[]", "Give at least 1 value"),
        ("recipe.epochs=two", "epochs=two: Give a whole number, not 'two'"),
        ("recipe.epochs=1.5", "epochs=1.5: Give a whole number, not 1.5"),
        ("recipe.optimizer.lr=fast", "lr=fast: Give a number, not 'fast'"),
        ("recipe.deterministic=maybe", "deterministic=maybe: Give true or false, not 'maybe'"),
        ("evaluations=null", "Nothing is given; give keys and values, or remove the key"),
        ("tables.t.columns=[mIoU]", "Did you mean 'miou'"),
        ("limit=50%", "Give a number of images, such as 32, or a fraction.* not '50%'"),
        ("name=a/b", "A name has letters, digits, .* not 'a/b'"),
        (f"name={'x' * 201}", "Use at most 200 letters, not 201"),
    ],
)
def test_values_of_a_hurried_user(
    write_suite: Callable[..., Path], setting: str, message: str | None
) -> None:
    if message is None:
        load(write_suite(), [setting])
        return
    with pytest.raises(UserError, match=message) as error:
        load(write_suite(), [setting])
    assert "\n" not in str(error.value)


def test_names_that_no_folder_can_have(write_suite: Callable[..., Path]) -> None:
    key, other = "x" * 200, "y" * 100
    [case] = load(write_suite(replace={"  enet:": f"  {key}:"})).cases()
    assert len(case.folder) <= 255
    long = TINY.replace("shapes: {", f"{other}: {{name: shapes, ").replace("enet:", f"{key}:")
    with pytest.raises(UserError, match=r"models\.x+: The folders of its cases"):
        load(write_suite(long)).cases()
    with pytest.raises(UserError, match=r"models\.y+: Use at most 200 letters, not 240"):
        load(write_suite(replace={"  enet:": f"  {'y' * 240}:"}))
