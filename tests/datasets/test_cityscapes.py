from pathlib import Path

import numpy as np
import pytest
from fixtures import CITYSCAPES_FRAMES, make_cityscapes
from PIL import Image
from pydantic import ValidationError
from torchvision.datasets import Cityscapes as Official

from bench.datasets.cityscapes import Cityscapes
from bench.errors import UserError

OFFICIAL = [one for one in Official.classes if one.id >= 0]  # without the license plate


def opened(root: Path | None, **options: object) -> Cityscapes:
    return Cityscapes(root, Cityscapes.Options.model_validate({"partial": True} | options))


def to_train_ids(root: Path) -> None:
    """Do not touch masks of train ids."""
    values = np.array([[*range(19), 255]], np.uint8)
    for mask in root.rglob("*_labelIds.png"):
        Image.fromarray(values).save(str(mask).replace("labelIds", "labelTrainIds"))
        mask.unlink()
    for image in root.rglob("*_leftImg8bit.png"):
        Image.fromarray(np.zeros((1, 20, 3), np.uint8)).save(image)


def read(dataset: Cityscapes) -> list[int]:
    _, target = dataset.checked(dataset.samples("train")[0])
    return target[0].tolist()


def test_the_nineteen_classes_are_the_official_ones(tmp_path: Path) -> None:
    assert read(opened(make_cityscapes(tmp_path))) == [*(one.train_id for one in OFFICIAL), 255]
    trained = sorted((o for o in OFFICIAL if o.train_id < 19), key=lambda one: one.train_id)
    labels = Cityscapes.labels(Cityscapes.Options())
    assert labels.names == tuple(one.name for one in trained)
    assert labels.palette == tuple(one.color for one in trained)
    assert labels.num_classes == 19


def test_the_seven_categories_are_the_official_ones(tmp_path: Path) -> None:
    dataset = opened(make_cityscapes(tmp_path), label_set="categories7")
    # Official category ids count void as 0.
    assert read(dataset) == [
        *(255 if one.category == "void" else one.category_id - 1 for one in OFFICIAL),
        255,
    ]
    labels = dataset.labels(dataset.options)
    by_id = {one.category_id: one.category for one in OFFICIAL if one.category != "void"}
    assert labels.names == tuple(by_id[index] for index in range(1, 8))
    assert labels.palette[0] == (128, 64, 128)
    assert labels.palette[6] == (0, 0, 142)
    assert len(set(labels.palette)) == 7


def test_of_the_34_ids_none_is_void(tmp_path: Path) -> None:
    dataset = opened(make_cityscapes(tmp_path), label_set="34ids")
    assert read(dataset) == [*range(34), 255]
    labels = dataset.labels(dataset.options)
    assert labels.names == tuple(one.name for one in OFFICIAL)
    assert labels.palette == tuple(one.color for one in OFFICIAL)


def test_samples_lie_in_the_order_of_their_paths(tmp_path: Path) -> None:
    dataset = opened(make_cityscapes(tmp_path))
    assert [sample.id for sample in dataset.samples("train")] == list(CITYSCAPES_FRAMES["train"])
    assert dataset.describe_split("train") == "train (part: 3 of 2975)"
    assert dataset.describe_split("val") == "val (part: 1 of 500)"


def test_a_part_must_be_asked_for(tmp_path: Path) -> None:
    dataset = Cityscapes(make_cityscapes(tmp_path), Cityscapes.Options())
    with pytest.raises(
        UserError, match=r"'train' has 3 images; the official split has 2975.*partial"
    ):
        dataset.samples("train")


def test_a_frame_of_the_true_size(tmp_path: Path) -> None:
    ids = np.full((1024, 2048), 7, np.uint8)
    ids[:, 1024:] = 23
    dataset = opened(make_cityscapes(tmp_path, ids))
    image, target = dataset.checked(dataset.samples("val")[0])
    assert image.shape == (1024, 2048, 3)
    assert np.unique(target[:, :1024]).tolist() == [0]
    assert np.unique(target[:, 1024:]).tolist() == [10]


def test_road_and_void_alone_are_no_binary_mask(tmp_path: Path) -> None:
    assert read(opened(make_cityscapes(tmp_path, np.array([[0, 255]], np.uint8)))) == [255, 255]


def test_train_ids_stand_in_for_the_19_classes_alone(tmp_path: Path) -> None:
    to_train_ids(make_cityscapes(tmp_path))
    assert read(opened(tmp_path)) == [*range(19), 255]
    for label_set in ("categories7", "34ids"):
        with pytest.raises(UserError, match=r"no .*aachen_000000_000019_gtFine_labelIds\.png"):
            opened(tmp_path, label_set=label_set).samples("train")


def test_ids_are_taken_where_both_are_there(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    for mask in tmp_path.rglob("*_labelIds.png"):
        mask.with_name(mask.name.replace("Ids", "TrainIds")).write_bytes(b"")
    assert read(opened(tmp_path))[7] == 0


@pytest.mark.parametrize(("label", "label_set"), [(34, 19), (40, "34ids"), (254, "categories7")])
def test_labels_that_are_none(tmp_path: Path, label: int, label_set: object) -> None:
    ids = np.array([[7, label]], np.uint8)
    dataset = opened(make_cityscapes(tmp_path, ids), label_set=label_set)
    with pytest.raises(UserError, match=rf"not allowed: {label} \(1 pixel\)\. Allowed: 0\.\.33"):
        dataset.read(dataset.samples("train")[0])


def test_a_train_id_that_is_none(tmp_path: Path) -> None:
    to_train_ids(make_cityscapes(tmp_path))
    dataset = opened(tmp_path)
    sample = dataset.samples("train")[0]
    Image.fromarray(np.full((1, 20), 19, np.uint8)).save(sample.mask)
    with pytest.raises(UserError, match=r"not allowed: 19 \(20 pixels\)\. Allowed: 0\.\.18, 255"):
        dataset.read(sample)


def test_test_has_no_labels(tmp_path: Path) -> None:
    dataset = opened(make_cityscapes(tmp_path))
    with pytest.raises(UserError, match=r"Cityscapes.*test split are not public"):
        dataset.samples("test")
    assert "test" not in dataset.splits


def test_what_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No images in .*train.*gtFine_trainvaltest\.zip.*https:"):
        opened(tmp_path).samples("train")
    dataset = opened(make_cityscapes(tmp_path))
    (tmp_path / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png").unlink()
    with pytest.raises(UserError, match=r"no file .*frankfurt_000000_000294_gtFine_labelIds\.png"):
        dataset.samples("val")


def test_unlisted_files(tmp_path: Path) -> None:
    dataset = opened(make_cityscapes(tmp_path))
    assert dataset.unlisted() == []
    stray = tmp_path / "gtFine/train/aachen/aachen_000007_000019_gtFine_labelIds.png"
    image = tmp_path / "leftImg8bit/val/frankfurt/copy.png"
    for file in (stray, image, stray.with_name("aachen_000007_000019_gtFine_color.png")):
        file.write_bytes(b"")
    assert dataset.unlisted() == [stray, image]


def test_options(tmp_path: Path) -> None:
    assert opened(None).options.label_set == 19
    for wrong in ("19", 34, "ids", True):
        with pytest.raises(ValidationError):
            opened(None, label_set=wrong)
    make_cityscapes(tmp_path)
    sets = [opened(tmp_path, label_set=one) for one in (19, "categories7", "34ids")]
    assert len({dataset.fingerprint("val") for dataset in sets}) == 3
    assert [dataset.title.partition(", ")[2] for dataset in sets] == [
        "19 classes)",
        "7 categories)",
        "34 ids)",
    ]
