"""A user's own folder: every way to describe it, and every way to get it wrong."""

from pathlib import Path

import numpy as np
import pytest
from fixtures import make_folder
from PIL import Image
from pydantic import ValidationError

from bench.datasets.base import Dataset
from bench.datasets.folder import Folder, spread_colours
from bench.datasets.registry import open_dataset
from bench.errors import UserError

TWO = {"classes": ["background", "cell"]}
MASK = [[0, 1, 1], [0, 0, 1]]


def opened(root: Path, **options: object) -> Dataset:
    return open_dataset("mine", "folder", None, TWO | options, {"mine": root})


def put_mask(root: Path, values: list, mode: str = "L") -> None:
    Image.fromarray(np.array(values, np.uint8)).convert(mode).save(root / "masks/train/a.png")


def target(dataset: Dataset) -> list:
    return dataset.checked(dataset.samples("train")[0])[1].tolist()


def test_the_default_layout(tmp_path: Path) -> None:
    mine = opened(make_folder(tmp_path, MASK))
    assert [sample.id for sample in mine.samples("train")] == ["a", "b"]
    assert target(mine) == MASK
    assert mine.title == tmp_path.name
    assert mine.labels(mine.options).names == ("background", "cell")


def test_patterns_reach_deeper_folders(tmp_path: Path) -> None:
    make_folder(tmp_path / "x", MASK)
    (tmp_path / "train" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "x/images/train/a.jpg").rename(tmp_path / "train/deep/er/a_img.jpg")
    (tmp_path / "x/masks/train/a.png").rename(tmp_path / "train/deep/er/a_img_L.png")
    mine = opened(tmp_path, images="{split}/**/*_img.jpg", masks="{split}/{folder}/{stem}_L.png")
    assert [sample.id for sample in mine.samples("train")] == ["deep/er/a_img"]
    assert target(mine) == MASK


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", "])
def test_lists_of_two_columns(tmp_path: Path, separator: str) -> None:
    root = make_folder(tmp_path, MASK)
    (root / "train.txt").write_text(f"images/train/b.jpg{separator}masks/train/a.png\n")
    mine = opened(root, list="{split}.txt")
    assert [sample.id for sample in mine.samples("train")] == ["images/train/b"]
    assert mine.samples("train")[0].mask == root / "masks/train/a.png"
    (root / "train.txt").write_text("image, mask\none\n")
    with pytest.raises(
        UserError,
        match=r"train.txt:2: expected an image and a mask, not 'one'; if names contain spaces",
    ):
        opened(root, list="{split}.txt").samples("train")


def test_0_255_masks_need_a_word(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    put_mask(root, [[0, 255, 255], [0, 0, 255]])
    with pytest.raises(UserError, match=r"a\.png has only the values 0 and 255.*binary: true"):
        target(opened(root))
    assert target(opened(root, binary=True)) == MASK
    assert target(opened(root, void=255)) == [[0, 255, 255], [0, 0, 255]]


def test_label_maps(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    put_mask(root, [[7, 9, 7], [3, 3, 9]])
    mapped = opened(root, label_map={7: 1, 9: 0, 3: "void"})
    assert target(mapped) == [[1, 0, 1], [255, 255, 0]]
    with pytest.raises(UserError, match=r"not allowed: 9 \(2 pixels\)\. Allowed: 3, 7, 255"):
        target(opened(root, label_map={7: 1, 3: 0}))


def test_label_zero_can_be_void(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    put_mask(root, [[0, 1, 2], [2, 1, 255]])
    assert target(opened(root, reduce_zero_label=True)) == [[255, 0, 1], [1, 0, 255]]
    with pytest.raises(UserError, match="not allowed: 255"):
        target(opened(root, void=2))


def test_colour_masks(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", MASK)
    red, blue, black = (255, 0, 0), (0, 0, 255), (0, 0, 0)
    put_mask(root, [[red, blue, black], [blue, blue, red]], "RGB")
    (tmp_path / "classes.csv").write_text("name, r, g, b\nroad, 255, 0, 0\nsky, 0, 0, 255\n")
    options = {"classes": str(tmp_path / "classes.csv"), "encoding": "colour"}
    with pytest.raises(UserError, match=r"colours of no class: \(0, 0, 0\) \(1 pixel\)"):
        target(opened(root, **options))
    mine = opened(root, **options, void=[0, 0, 0])
    assert target(mine) == [[0, 1, 255], [1, 1, 0]]
    assert mine.labels(mine.options).palette == (red, blue)
    with pytest.raises(UserError, match="not pixels of mode 'RGB'"):
        target(opened(root))


def test_a_class_file_lies_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("name,r,g,b\na,1,2,3\n")
    found = Folder.Options.model_validate({"classes": "c.csv"}, context={"folder": tmp_path})
    assert found.model_dump()["classes"] == ({"name": "a", "colour": (1, 2, 3)},)
    with pytest.raises(ValidationError, match=r"No class file .*gone\.csv"):
        Folder.Options.model_validate({"classes": "gone.csv"}, context={"folder": tmp_path})
    (tmp_path / "bad.csv").write_text("class,colour\na,red\n")
    with pytest.raises(ValidationError, match="expected a CSV file with the header name,r,g,b"):
        Folder.Options.model_validate({"classes": "bad.csv"}, context={"folder": tmp_path})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "at least 1 item"),
        ({"classes": ["a", "a"]}, "a name occurs twice"),
        ({"binary": True, "classes": ["a", "b", "c"]}, "binary needs two classes, not 3"),
        ({"label_map": {0: 5}}, r"label_map: 0 is mapped to 5, which is not a class \(0\.\.1\)"),
        (
            {"binary": True, "reduce_zero_label": True},
            "Give only one of label_map, reduce_zero_label",
        ),
        ({"encoding": "colour", "binary": True}, "binary is for index masks"),
        ({"encoding": "colour", "void": 3}, r"give a colour \[r, g, b\]"),
        ({"void": [0, 0, 0]}, "set encoding: colour too"),
        ({"void": 1}, "void: label 1 already stands for a class"),
        ({"void": 2, "reduce_zero_label": True}, "void: label 2 already stands for a class"),
        ({"void": 7, "label_map": {7: 0}}, "void: label 7 already stands for a class"),
        ({"label_map": {300: 0}}, "less than or equal to 255"),
        ({"masks": "{splt}/{stem}.png"}, r"masks: it may contain only {folder}, {split}, {stem}"),
        ({"void": 256}, "less than or equal to 255"),
    ],
)
def test_options_that_do_not_agree(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Folder.Options.model_validate(TWO | options)


def test_rotated_photos(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    exif = Image.Exif()
    exif[0x0112] = 8
    photo = root / "images/train/a.jpg"
    Image.new("RGB", (2, 3)).save(photo, exif=exif)  # upright it is 3 wide, like its mask
    with pytest.raises(UserError, match="an EXIF tag"):
        target(opened(root))
    assert target(opened(root, exif="upright")) == MASK
    with pytest.raises(UserError, match=r"a\.png is 3x2 but its image .*a\.jpg is 2x3"):
        target(opened(root, exif="stored"))


def test_nothing_found_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No image matches .*images/train/\*\. The options images"):
        opened(tmp_path).samples("train")
    root = make_folder(tmp_path, MASK)
    with pytest.raises(UserError, match=r"no file .*masks/train/a_gt\.png and 1 more"):
        opened(root, masks="masks/{split}/{stem}_gt.png").samples("train")
    with pytest.raises(UserError, match="Unknown split 'dev'"):
        opened(root).samples("dev")


def test_unlisted_files(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    (root / "masks/train/c.png").write_bytes((root / "masks/train/a.png").read_bytes())
    assert opened(root).unlisted() == [root / "masks/train/c.png"]


def test_colours_are_distinguished() -> None:
    colours = spread_colours(30)
    assert colours[0] == (0, 0, 0)
    distances = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for i, one in enumerate(colours)
        for other in colours[:i]
    ]
    assert min(distances) > 20


def test_names_of_the_cityscapes_kind(tmp_path: Path) -> None:
    make_folder(tmp_path / "x", MASK)
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name in names:
            for kind, old in (("image.jpg", "images"), ("label.png", "masks")):
                source = next((tmp_path / "x" / old / split).glob(f"{name}.*"))
                new = tmp_path / split / f"02454{name}_{kind}"
                new.parent.mkdir(exist_ok=True)
                source.rename(new)
            for other in ("inst_label.png", "disp.png"):
                new.with_name(f"02454{name}_{other}").write_bytes(new.read_bytes())
    mine = opened(tmp_path, images="{split}/{stem}_image.jpg", masks="{split}/{stem}_label.png")
    assert [sample.id for sample in mine.samples("train")] == ["02454a", "02454b"]
    assert target(mine) == MASK
    assert mine.unlisted() == []
    assert mine.remark() == ""
    assert mine.lies_beside() == "4 *_disp.png, 4 *_inst_label.png"


def test_what_is_left_out_or_doubled_is_said(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    assert opened(root).remark() == ""
    (root / "images/train/._a.jpg").write_bytes(b"x")
    (root / "masks/train/.DS_Store").write_bytes(b"x")
    assert opened(root).remark() == ""
    assert len(opened(root).samples("train")) == 2
    capital = root / "images/train/b.JPG"
    (root / "images/train/b.jpg").rename(capital)
    mine = opened(root, images="images/{split}/*.jpg")
    assert mine.unlisted() == [capital, root / "masks/train/b.png"]
    assert "2 files are in no split (such as" in mine.remark()
    capital.rename(root / "images/train/b.jpg")
    (root / "images/train/a.png").write_bytes((root / "images/train/b.jpg").read_bytes())
    doubled = opened(root)
    assert "1 mask belongs to several images (such as" in doubled.remark()
    [(mask, images)] = doubled.shared_masks().items()
    assert mask.name == "a.png"
    assert [image.name for image in images] == ["a.jpg", "a.png"]


def test_what_lists_leave_out_is_a_kind(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").write_text("images/train/a.jpg masks/train/a.png\n")
    mine = opened(root, list="{split}.txt")
    assert mine.unlisted() == []
    assert mine.lies_beside() == "1 *.jpg, 1 *.png"


def test_lists_lie_in_the_root_or_beside_the_suite(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", MASK)
    (tmp_path / "train.txt").write_text("/images/train/a.jpg,/masks/train/a.png\n")
    given = TWO | {"list": "{split}.txt"}
    mine = open_dataset("mine", "folder", None, given, {"mine": root}, str(tmp_path))
    assert [sample.id for sample in mine.samples("train")] == ["images/train/a"]
    assert target(mine) == MASK
    (root / "train.txt").write_text("images/train/b.jpg masks/train/b.png\n")
    inside = open_dataset("mine", "folder", None, given, {"mine": root}, str(tmp_path))
    assert [sample.id for sample in inside.samples("train")] == ["images/train/b"]


def test_a_palette_that_exchanges_classes_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    mask = Image.fromarray(np.array(MASK, np.uint8), "P")
    mask.putpalette([255, 0, 0, 0, 0, 0])
    mask.save(root / "masks/train/a.png")
    assert target(opened(root)) == MASK  # the suite gives no colours
    colours = [{"name": "bg", "colour": [0, 0, 0]}, {"name": "cell", "colour": [255, 0, 0]}]
    with pytest.raises(UserError, match=r"label 0 the colour \(255, 0, 0\).*encoding: colour"):
        target(opened(root, classes=colours))
    by_colour = opened(root, classes=colours, encoding="colour")
    assert target(by_colour) == [[1 - label for label in row] for row in MASK]
    mapped = opened(root, classes=colours, label_map={0: 1, 1: 0})
    assert target(mapped) == [[1 - label for label in row] for row in MASK]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "{split}/[z-a]*"}, "images: .* is no pattern: bad character range"),
        ({"masks": "{stem:05d}.png"}, "masks: it may contain only"),
        ({"masks": "{stem!r}.png"}, "masks: it may contain only"),
        ({"masks": "{{stem}}.png"}, "masks: write single braces"),
        ({"masks": "masks/{split}/*.png"}, "masks: without {stem}, all images have the same mask"),
        ({"list": "{split}.txt", "images": "*.jpg"}, "list: it names the images and masks"),
        ({"list": "{split}.txt", "masks": "{stem}.png"}, "list: it names the images and masks"),
        ({"splits": ["train", "train"]}, "splits: a split occurs twice"),
        ({"classes": ["a", " "]}, "classes: a name is empty"),
        (
            {
                "encoding": "colour",
                "classes": [{"name": "a", "colour": [0, 0, 0]}],
                "void": [0, 0, 0],
            },
            r"void: the colour \(0, 0, 0\) already stands for a class",
        ),
    ],
)
def test_options_that_would_fail_later(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Folder.Options.model_validate(TWO | options)


def test_binary_masks_have_one_way_to_say_1(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    put_mask(root, [[0, 1, 255], [0, 0, 1]])
    with pytest.raises(UserError, match="has the values 1 and 255; binary: true takes one"):
        target(opened(root, binary=True))


def test_images_of_other_kinds_are_not_forgotten(tmp_path: Path) -> None:
    root = make_folder(tmp_path, MASK)
    (root / "images/train/b.jpg").rename(root / "images/train/b.heic")
    mine = opened(root)
    assert root / "images/train/b.heic" in mine.unlisted()
    (root / "images/train/a.jpg").rename(root / "images/train/a.ppm")
    with pytest.raises(UserError, match=r"Files of other kinds match \(\.heic, \.ppm\)"):
        opened(root).samples("train")
    (root / "images/train/a.ppm").rename(root / "images/train/a.jfif")
    assert [sample.id for sample in opened(root).samples("train")] == ["a"]


def test_a_split_with_a_bracket(tmp_path: Path) -> None:
    make_folder(tmp_path, MASK)
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").rename(tmp_path / kind / "fold[1]")
    mine = opened(tmp_path, splits=["fold[1]"])
    assert len(mine.samples("fold[1]")) == 2


@pytest.mark.parametrize(
    "options", [{"list": "all.txt"}, {"images": "all/*.jpg", "masks": "masks/{stem}.png"}]
)
def test_splits_that_would_be_the_same_files_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError, match="without {split}, all splits are the same files"):
        Folder.Options.model_validate(TWO | options)
    Folder.Options.model_validate(TWO | options | {"splits": ["train"]})
