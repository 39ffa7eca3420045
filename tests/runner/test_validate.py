import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY
from fixtures import make_folder

from bench.errors import UserError
from bench.runner.validate import check, load_checked
from bench.suite.expand import expand


def checked(file: Path, need_data: bool = True):
    loaded = load_checked(file)
    return check(loaded, expand(loaded.suite), {}, need_data)


def test_facts_of_a_case(write_suite: Callable[..., Path]) -> None:
    [facts] = checked(write_suite()).values()
    assert facts.facts.num_params == 363_466
    assert facts.facts.size == (32, 32)
    assert set(facts.fingerprints) == {"train", "val"}


def test_every_fault_of_data_and_networks_at_once(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    text = TINY.replace("shapes:", "camvid: {}\n  shapes:").replace(
        "enet:",
        "deep: {arch: smp/deeplabv3, encoder: vgg11}\n  fast: {arch: custom/fcn, q: 1}\n  enet:",
    )
    with pytest.raises(UserError) as caught:
        checked(write_suite(text))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "suite.yaml:5: datasets.camvid: Dataset 'camvid' has no folder" in lines[0]
    assert "suite.yaml:8: models.deep: smp/deeplabv3 does not build" in lines[1]
    assert (
        "suite.yaml:9: models.fast: custom/fcn: Unknown option 'q'. Known: direct_head." in lines[2]
    )


def test_missing_data_is_passed_over_where_it_is_not_needed(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    file = write_suite(
        TINY.replace("shapes: {size: [32, 32], num_train: 16, num_val: 6}", "camvid: {}")
    )
    [facts] = checked(file, need_data=False).values()
    assert facts.facts.size == (512, 512)


def test_a_batch_that_cannot_train(write_suite: Callable[..., Path]) -> None:
    text = TINY.replace("custom/enet", "smp/deeplabv3, encoder: resnet18").replace(
        "batch_size: 4", "batch_size: 4\n  accumulate: 4"
    )
    with pytest.raises(UserError, match="models.enet: smp/deeplabv3 cannot train on 1 image"):
        checked(write_suite(text))


@pytest.mark.parametrize("name", ["c", "e"])
def test_evaluated_splits_are_tried_too(
    write_suite: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    root = make_folder(tmp_path / "mine", [[0, 1], [1, 0]])
    for place in ("images/val/c.jpg", "masks/val/c.png"):
        shutil.copy(root / place, root / place.replace("c.", "e."))
    (root / f"masks/val/{name}.png").write_bytes(b"no picture")
    text = TINY.replace(
        "shapes: {size: [32, 32], num_train: 16, num_val: 6}",
        f"mine: {{name: folder, root: '{root}', classes: [a, b], splits: [train, val]}}",
    ).replace("batch_size: 4", "batch_size: 2\n  size: [64, 64]")
    with pytest.raises(UserError, match=rf"masks/val/{name}\.png"):
        checked(write_suite(text))


def test_a_split_of_the_suite_that_the_data_lacks(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(tmp_path / "mine", [[0, 1], [1, 0]])
    text = TINY.replace(
        "shapes: {size: [32, 32], num_train: 16, num_val: 6}",
        f"mine: {{name: folder, root: '{root}', classes: [a, b], splits: [train, test]}}",
    )
    with pytest.raises(UserError, match=r"Unknown split 'val'\..* Name the splits to use: splits"):
        checked(write_suite(text))
