"""`bench data check` finds each planted fault, and none in correct data."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures import make_camvid, make_folder, make_voc, make_voc_aug, make_voc_mask
from PIL import Image

from bench.datasets.base import Dataset
from bench.datasets.camvid import SEGNET
from bench.datasets.registry import open_dataset
from bench.datasets.shapes import Shapes
from bench.datasets.tools.alignment import fit, look_of, shape_of
from bench.datasets.tools.check import CheckReport, check
from bench.errors import UserError


def checked(dataset: Dataset, splits: tuple[str, ...] | None = None) -> CheckReport:
    return check(dataset, splits, 2, lambda done, total: None)


def camvid(root: Path, **options: object) -> Dataset:
    return open_dataset("camvid", "camvid", None, options, {"camvid": root})


def found(report: CheckReport) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for finding in report.findings:
        kinds.setdefault(finding.kind, []).append(f"{finding.split}: {finding.message}")
    return kinds


# On the real data


@pytest.fixture
def real_camvid(shared: Path, tmp_path: Path) -> Path:
    """A copy of the data in which tests plant faults."""
    return shutil.copytree(shared / "data" / "camvid", tmp_path / "camvid")


def test_nothing_is_wrong_with_the_real_camvid(shared: Path) -> None:
    report = checked(camvid(shared / "data" / "camvid"))
    assert report.findings == []
    assert report.notes == []
    assert [(s.name, s.num_images) for s in report.splits] == [
        ("train", 367),
        ("val", 101),
        ("test", 233),
    ]


def test_the_histogram_of_the_real_camvid(shared: Path) -> None:
    """Compare with Pillow's own histogram of the PNG files."""
    root = shared / "data" / "camvid"
    train = checked(camvid(root), ("train",)).splits[0]
    counts = np.zeros(256, np.int64)
    for line in (root / "train.txt").read_text().splitlines():
        counts += np.array(Image.open(root / line.split()[1]).histogram())
    assert train.pixels.tolist() == counts[:11].tolist()
    assert train.void == counts[11]
    assert counts.sum() == 367 * 360 * 480


def image_of(root: Path, split: str, line: int) -> tuple[Path, Path]:
    image, mask = (root / f"{split}.txt").read_text().splitlines()[line].split()
    return root / image, root / mask


def test_ten_planted_faults_are_found_in_the_real_camvid(real_camvid: Path) -> None:
    root = real_camvid
    truncated, _ = image_of(root, "train", 10)
    truncated.write_bytes(truncated.read_bytes()[:9000])
    (_, one), (_, other) = image_of(root, "train", 30), image_of(root, "train", 300)
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)
    _, labelled = image_of(root, "val", 3)
    mask = np.array(Image.open(labelled))
    mask[:2, :5] = 12
    Image.fromarray(mask).save(labelled)
    _, binary = image_of(root, "val", 5)
    Image.fromarray((np.array(Image.open(binary)) > 3).astype(np.uint8) * 255).save(binary)
    copied, _ = image_of(root, "test", 7)
    copied.write_bytes(image_of(root, "train", 77)[0].read_bytes())
    missing, _ = image_of(root, "test", 9)
    missing.unlink()
    _, grey = image_of(root, "train", 99)
    colours = np.array([*SEGNET.palette, (0, 0, 0)], np.uint8)[np.array(Image.open(grey))]
    Image.fromarray(colours).convert("L").save(grey)
    _, empty = image_of(root, "val", 50)
    Image.fromarray(np.full((360, 480), 11, np.uint8)).save(empty)
    extra = root / "testannot" / "0001TP_999999.png"
    extra.write_bytes(labelled.read_bytes())
    _, small = image_of(root, "test", 100)
    Image.open(small).resize((240, 180), Image.Resampling.NEAREST).save(small)

    kinds = found(checked(camvid(root)))
    expected = {
        "unreadable file": truncated,
        "swapped mask": one,
        "wrong label": labelled,
        "0/255 mask": binary,
        "duplicate across splits": copied,
        "missing file": missing,
        "grey-converted palette": grey,
        "all-void mask": empty,
        "extra file": extra,
        "size mismatch": small,
    }
    assert {kind: len(messages) for kind, messages in kinds.items()} == dict.fromkeys(expected, 1)
    for kind, file in expected.items():
        assert str(file) in kinds[kind][0]
    assert str(other) in kinds["swapped mask"][0]
    assert "not allowed: 12 (10 pixels)" in kinds["wrong label"][0]


def test_the_real_part_of_voc_is_a_part_and_nothing_else(shared: Path) -> None:
    roots = {"voc2012": shared / "data" / "VOCdevkit"}
    report = checked(open_dataset("voc2012", "voc2012", None, {}, roots))
    assert found(report) == {
        "split size": [
            f"{split}: {num}. Set partial: true to accept this (--set partial=true)."
            for split, num in (
                ("train", "437 images; the official split has 1464"),
                ("val", "445 images; the official split has 1449"),
            )
        ]
    }
    counts, borders = np.zeros(256, np.int64), 0
    for file in (shared / "data/VOCdevkit/VOC2012/SegmentationClass").iterdir():
        histogram = np.array(Image.open(file).histogram())  # of the palette's indices
        counts += histogram
        borders += histogram[255] > 0
    assert borders == 882
    assert sum(split.pixels for split in report.splits).tolist() == counts[:21].tolist()
    assert sum(split.void for split in report.splits) == counts[255]
    accepted = checked(open_dataset("voc2012", "voc2012", None, {"partial": True}, roots))
    assert accepted.findings == []
    assert accepted.notes == [
        "train: 437 images; the official split has 1464 (accepted by partial: true).",
        "val: 445 images; the official split has 1449 (accepted by partial: true).",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["camvid", "voc2012"])
def test_how_many_random_exchanges_are_found(shared: Path, tmp_path: Path, name: str) -> None:
    """Use the data that the thresholds were chosen on: distant frames, or frames of one size."""
    source = {"camvid": "camvid", "voc2012": "VOCdevkit"}[name]
    root = shutil.copytree(shared / "data" / source, tmp_path / "data")
    options = {"partial": True} if name == "voc2012" else {}
    dataset = open_dataset(name, name, None, options, {name: root})
    rng = np.random.default_rng(0)
    masks = [s.mask for split in ("train", "val") for s in dataset.samples(split)]
    order = rng.permutation(len(masks))
    sizes = {mask: np.array(Image.open(mask)).shape for mask in masks}
    pairs, used = [], set()
    for i in order:
        for j in order:
            far = abs(int(i) - int(j)) > 30
            if len({i, j, *used}) == len(used) + 2 and sizes[masks[i]] == sizes[masks[j]] and far:
                pairs.append((masks[i], masks[j]))
                used |= {i, j}
                break
        if len(pairs) == 10:
            break
    for one, other in pairs:
        first = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(first)
    messages = found(checked(dataset)).get("swapped mask", [])
    hits = sum(any(str(a) in m and str(b) in m for m in messages) for a, b in pairs)
    assert hits >= 9
    assert len(messages) == hits


# On generated data


def test_every_made_dataset_is_right(tmp_path: Path) -> None:
    assert checked(camvid(make_camvid(tmp_path / "a"), partial=True)).findings == []
    shapes = open_dataset("shapes", "shapes", None, {"num_train": 30}, {})
    report = checked(shapes)
    assert report.findings == []
    assert report.splits[0].pixels.sum() + report.splits[0].void == 30 * 96 * 96


def list_a_missing_pair(root: Path) -> str:
    with (root / "train.txt").open("a") as stream:
        stream.write("train/gone.png trainannot/gone.png\n")
    return "missing file"


def list_twice(root: Path) -> str:
    file = root / "train.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    return "listed twice"


def list_a_training_image_for_validation(root: Path) -> str:
    with (root / "val.txt").open("a") as stream:
        stream.write("train/a2.png trainannot/a2.png\n")
    return "duplicate across splits"


def copy_an_image(root: Path) -> str:
    shutil.copy(root / "train/a1.png", root / "train/a2.png")
    return "duplicate image"


def save_an_image_otherwise(root: Path) -> str:
    """The same pixels, encoded as different bytes."""
    Image.open(root / "train/a1.png").save(root / "train/a2.png", compress_level=1)
    return "duplicate image"


def copy_a_mask(root: Path) -> str:
    shutil.copy(root / "trainannot/a1.png", root / "trainannot/a2.png")
    return "same mask"


def pair_with_anothers_mask(root: Path) -> str:
    text = "train/a1.png trainannot/a2.png\ntrain/a2.png trainannot/a1.png\n"
    (root / "train.txt").write_text("train/a0.png trainannot/a0.png\n" + text)
    return "swapped mask"


def swap_the_columns(root: Path) -> str:
    text = (root / "train.txt").read_text().splitlines()
    (root / "train.txt").write_text("\n".join([*text[1:], " ".join(text[0].split()[::-1])]))
    return "colour mask"


def turn_by_exif(root: Path) -> str:
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.open(root / "train/a0.png")
    image.load()
    image.save(root / "train/a0.png", exif=exif)
    return "pixel format"


def forget_a_list(root: Path) -> str:
    (root / "test.txt").unlink()
    return "split not listed"


@pytest.mark.parametrize(
    "plant",
    [
        list_a_missing_pair,
        list_twice,
        list_a_training_image_for_validation,
        copy_an_image,
        save_an_image_otherwise,
        copy_a_mask,
        pair_with_anothers_mask,
        swap_the_columns,
        turn_by_exif,
        forget_a_list,
    ],
)
def test_planted_faults(plant: Callable[[Path], str], tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    kind = plant(root)
    kinds = Counter(finding.kind for finding in checked(camvid(root, partial=True)).findings)
    assert kinds.pop(kind) >= 1
    # If a line of a list, or a whole list, is missing, some files belong to no split.
    assert set(kinds) <= {"extra file"}


def test_a_rearranged_palette(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    file = root / "VOC2012/SegmentationClass/2007_000002.png"
    Image.open(file).convert("RGB").quantize(8).save(file)
    roots = {"voc2012": root}
    kinds = found(checked(open_dataset("voc2012", "voc2012", None, {"partial": True}, roots)))
    assert set(kinds) == {"wrong palette", "same mask"}
    assert "2007_000002.png: index" in kinds["wrong palette"][0]


@pytest.mark.parametrize("layout", ["mat", "png"])
def test_a_complete_sbd_is_right(tmp_path: Path, layout: str) -> None:
    root = make_voc_aug(tmp_path)
    base = root / "VOC2012"
    if layout == "png":
        (base / "SegmentationClassAug").mkdir()
        for name in ("2007_000001", "2007_000002", "2007_000003"):
            make_voc_mask(base / "SegmentationClassAug" / f"{name}.png")
    roots = {"voc2012_aug": root}
    aug = open_dataset("voc2012_aug", "voc2012_aug", None, {"partial": True}, roots)
    assert {finding.kind for finding in checked(aug).findings} <= {"same mask"}
    make_voc_mask(base / "SegmentationClass" / "2011_000009.png")
    assert "2011_000009.png" in found(checked(aug))["extra file"][0]


def test_withheld_and_unknown_splits(tmp_path: Path) -> None:
    roots = {"voc2012": make_voc(tmp_path)}
    voc = open_dataset("voc2012", "voc2012", None, {"partial": True}, roots)
    kinds = found(checked(voc, ("train", "test")))
    assert "test split are not public" in kinds["withheld split"][0]


def test_a_folder_without_test_is_no_fault(tmp_path: Path) -> None:
    root = make_folder(tmp_path, [[0, 1], [1, 0]])
    for folder in ("images", "masks"):
        shutil.rmtree(root / folder / "test")
    options = {"classes": ["a", "b"]}
    mine = open_dataset("mine", "folder", None, options, {"mine": root})
    report = checked(mine)
    assert "There is no split 'test'." in report.notes
    assert {finding.kind for finding in report.findings} <= {"same mask"}
    assert found(checked(mine, ("train", "test")))["split not listed"]


def test_an_empty_split_is_a_finding(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    (root / "val.txt").write_text("")
    assert found(checked(camvid(root, partial=True)))["empty split"] == ["val: It has no images."]


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No file .*train\.txt"):
        checked(camvid(tmp_path))


def test_users_own_faults_are_findings() -> None:
    own = open_dataset("own", f"{__name__}:Wrong", None, {}, {})
    kinds = found(checked(own, ("train",)))
    assert set(kinds) == {"wrong sample"}
    assert "own, sample 'train/00000': ZeroDivisionError" in kinds["wrong sample"][0]
    assert "the target is int64" in kinds["wrong sample"][1]
    assert "the target is list" in kinds["wrong sample"][2]


class Wrong(Shapes):
    """Three samples, each with a different fault."""

    def listed(self, split):
        return super().listed(split)[:3]

    def read_target(self, sample):
        if sample.id.endswith("0"):
            return 1 / 0
        target = super().read_target(sample)
        return target.astype(np.int64) if sample.id.endswith("1") else target.tolist()


def test_progress_and_threads(tmp_path: Path) -> None:
    seen = []
    check(camvid(make_camvid(tmp_path), partial=True), None, os.cpu_count() or 1, seen_by(seen))
    assert seen == [(i + 1, 6) for i in range(6)]


def seen_by(seen: list[tuple[int, int]]) -> Callable[[int, int], None]:
    return lambda done, total: seen.append((done, total))


def test_a_mask_fits_its_own_image_best() -> None:
    shapes = open_dataset("shapes", "shapes", None, {"size": [160, 160], "num_val": 6}, {})
    pairs = [shapes.read(sample) for sample in shapes.samples("val")]
    for i, (image, _) in enumerate(pairs):
        fits = [fit(look_of(image), shape_of(target), 0.0) for _, target in pairs]
        assert int(np.argmax(fits)) == i
    flat = shape_of(np.zeros((160, 160), np.uint8))
    assert np.isnan(fit(look_of(pairs[0][0]), flat, 0.0))
