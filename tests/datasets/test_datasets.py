"""Every dataset does what it promises; each layout is tested on a tiny copy of the real one."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fixtures import (
    make_camvid,
    make_camvid_colour,
    make_cityscapes,
    make_folder,
    make_idd,
    make_voc,
    make_voc_aug,
    make_voc_mask,
)
from PIL import Image
from scipy.io import savemat

from bench.datasets.base import Dataset
from bench.datasets.camvid import ORIGINAL, SEGNET
from bench.datasets.registry import DATASETS, find, open_dataset
from bench.datasets.voc import LABELS as VOC
from bench.errors import UserError

MAKE: dict[str, Callable[[Path], Path]] = {
    "camvid": make_camvid,
    "cityscapes": make_cityscapes,
    "folder": partial(make_folder, mask=[[0, 1], [1, 0]]),
    "idd": make_idd,
    "voc2007": partial(make_voc, year="2007"),
    "voc2012": make_voc,
    "voc2012_aug": make_voc_aug,
}
PARTIAL = {"partial": True}
OPTIONS: dict[str, dict] = {"shapes": {}, "folder": {"classes": ["a", "b"]}}


@pytest.fixture(params=DATASETS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    name = request.param
    root = {name: MAKE[name](tmp_path)} if name in MAKE else {}
    return open_dataset(name, name, None, OPTIONS.get(name, PARTIAL), root)


def test_every_split_can_be_read(dataset: Dataset) -> None:
    labels = dataset.labels(dataset.options)
    assert len(labels.palette) == labels.num_classes == len(set(labels.names))
    for split in dataset.splits:
        samples = dataset.samples(split)
        assert len({sample.id for sample in samples}) == len(samples) > 0
        image, target = dataset.read(samples[0])
        assert image.dtype == target.dtype == np.uint8
        assert image.shape == (*target.shape, 3)
        assert target[target != 255].max(initial=0) < labels.num_classes
        again, _ = dataset.read(samples[0])
        assert np.array_equal(image, again)


def test_fingerprints(dataset: Dataset) -> None:
    prints = [dataset.fingerprint(split) for split in dataset.splits]
    assert len(set(prints)) == len(prints)
    assert prints[0] == dataset.fingerprint(dataset.splits[0])
    if dataset.name not in ("shapes", "folder"):
        assert dataset.citation.startswith("@")
        assert dataset.citation.count("{") == dataset.citation.count("}")
        assert dataset.layout
        assert dataset.licence


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    make_camvid(tmp_path)

    def prints() -> tuple[str, str]:
        camvid = open_dataset("camvid", "camvid", None, PARTIAL, {"camvid": tmp_path})
        return camvid.fingerprint("train"), camvid.fingerprint("val")

    before = prints()
    file = tmp_path / "trainannot" / "a0.png"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1  # as many bytes as before
    file.write_bytes(content)
    after = prints()
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.parametrize("name", sorted(MAKE.keys() - {"folder"}))
def test_a_missing_root_is_reported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(UserError, match=f"--root {name}=PATH.*BENCH_DATA/{name}"):
        open_dataset(name, name, None, {}, {}).samples("train")
    with pytest.raises(UserError, match=r"No folder .*gone.*Expected"):
        open_dataset(name, name, None, {}, {name: tmp_path / "gone"}).samples("train")
    with pytest.raises(UserError, match=r"No .*(train|val.txt|IDD_Seg).*Expected"):
        open_dataset(name, name, str(tmp_path), {}, {}).samples("train")


def test_where_a_dataset_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "env"))
    assert open_dataset("mine", "camvid", None, {}, {}).root == tmp_path / "env" / "camvid"
    assert open_dataset("mine", "camvid", "/suite", {}, {}).root == Path("/suite")
    for key in ("mine", "camvid"):
        roots = {key: tmp_path / "flag"}
        assert open_dataset("mine", "camvid", "/suite", {}, roots).root == tmp_path / "flag"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/a0.png\n", r"train.txt:1: expected an image and a mask"),
        ("train/a0.png trainannot/gone.png\n", r"split 'train': no file .*gone.png"),
    ],
)
def test_camvid_lists(tmp_path: Path, line: str, message: str) -> None:
    root = make_camvid(tmp_path)
    (root / "train.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        open_dataset("camvid", "camvid", None, {}, {"camvid": root}).samples("train")


def test_a_part_of_voc_must_be_asked_for(tmp_path: Path) -> None:
    roots = {"voc2012": make_voc(tmp_path)}
    with pytest.raises(
        UserError, match=r"'train' has 2 images; the official split has 1464.*partial"
    ):
        open_dataset("voc2012", "voc2012", None, {}, roots).samples("train")
    part = open_dataset("voc2012", "voc2012", None, {"partial": True}, roots)
    assert part.describe_split("train") == "train (part: 2 of 1464)"
    _, target = part.read(part.samples("val")[0])
    assert sorted(set(target.flatten())) == [0, 1, 15, 20, 255]


def test_voc_void_can_be_background(tmp_path: Path) -> None:
    roots = {"voc2012": make_voc(tmp_path)}
    kept = open_dataset("voc2012", "voc2012", None, PARTIAL, roots)
    filled = open_dataset("voc2012", "voc2012", None, PARTIAL | {"void": "background"}, roots)
    sample = kept.samples("train")[0]
    before, after = kept.read(sample)[1], filled.read(sample)[1]
    assert np.array_equal(np.where(before == 255, 0, before), after)
    assert (before == 255).sum() == 18
    assert kept.fingerprint("train") != filled.fingerprint("train")
    assert (kept.void, filled.void) == ("excluded", "as background")


def test_a_held_back_split_says_why(tmp_path: Path) -> None:
    voc = open_dataset("voc2012", "voc2012", None, PARTIAL, {"voc2012": make_voc(tmp_path)})
    with pytest.raises(UserError, match="labels of the test split are not public"):
        voc.samples("test")


def test_a_root_above_vocdevkit_does_too(tmp_path: Path) -> None:
    make_voc(tmp_path / "VOCdevkit")
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        voc = open_dataset("voc2012", "voc2012", None, PARTIAL, {"voc2012": root})
        assert len(voc.samples("train")) == 2


def voc_aug(root: Path) -> Dataset:
    return open_dataset("voc2012_aug", "voc2012_aug", None, PARTIAL, {"voc2012_aug": root})


def test_sbd_never_brings_val_into_train(tmp_path: Path) -> None:
    aug = voc_aug(make_voc_aug(tmp_path))
    train, val = aug.samples("train"), aug.samples("val")
    assert [s.id for s in train] == ["2007_000001", "2007_000002", "2008_000005"]
    assert [s.id for s in val] == ["2007_000003"]
    assert [s.id for s in aug.samples("trainval")] == [s.id for s in (*train, *val)]
    assert [s.mask.suffix for s in train] == [".png", ".png", ".mat"]  # VOC's own masks first
    _, target = aug.checked(train[2])
    assert target[0].tolist() == [0, 0, 20, 15, 1, 0, 0]


def test_sbd_as_pngs(tmp_path: Path) -> None:
    base = make_voc_aug(tmp_path) / "VOC2012"
    pngs = base / "SegmentationClassAug"
    pngs.mkdir()
    for name in ("2007_000001", "2007_000003", "2007_000002"):
        make_voc_mask(pngs / f"{name}.png")
    aug = voc_aug(tmp_path)
    assert [s.id for s in aug.samples("train")] == ["2007_000001", "2007_000002"]
    assert aug.samples("train")[0].mask == pngs / "2007_000001.png"
    assert aug.samples("val")[0].mask == base / "SegmentationClass" / "2007_000003.png"
    given = base / "ImageSets" / "Segmentation" / "trainaug.txt"
    given.write_text("2007_000002\n")
    assert [s.id for s in voc_aug(tmp_path).samples("train")] == ["2007_000001", "2007_000002"]
    given.write_text("2007_000002\n2007_000003\n")
    with pytest.raises(UserError, match="1 images of VOC's val for training, such as 2007_000003"):
        voc_aug(tmp_path).samples("train")


def test_sbd_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No SBD masks at .*benchmark_RELEASE.*option sbd"):
        voc_aug(make_voc(tmp_path / "a")).samples("train")
    root = make_voc_aug(tmp_path / "b")
    file = root / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000005.mat"
    for content, message in ((b"no matrix", "Cannot read"), (b"", "Cannot read")):
        file.write_bytes(content)
        aug = voc_aug(root)
        sample = aug.samples("train")[2]
        with pytest.raises(UserError, match=f"{message}.*2008_000005.mat"):
            aug.read(sample)
    savemat(file, {"other": np.zeros(2)})
    with pytest.raises(UserError, match=r"2008_000005\.mat has no GTcls\.Segmentation"):
        aug.read(sample)


def camvid_colour(root: Path, label_set: int) -> Dataset:
    return open_dataset("camvid", "camvid", None, {"label_set": label_set}, {"camvid": root})


def test_camvid_in_32_colours(tmp_path: Path) -> None:
    camvid = camvid_colour(make_camvid_colour(tmp_path), 32)
    assert camvid.labels(camvid.options).names == tuple(ORIGINAL)
    _, target = camvid.checked(camvid.samples("train")[0])
    void = list(ORIGINAL).index("Void")
    expected = [255 if i == void else i for i in range(32)] + [255] * 31
    assert target.ravel().tolist() == expected


GROUPS = {  # typed from the table of SegNet's 11 classes in MATLAB's and Sturgess' grouping
    "sky": "Sky",
    "building": "Archway Bridge Building Tunnel Wall",
    "pole": "Column_Pole TrafficCone",
    "road": "LaneMkgsDriv LaneMkgsNonDriv Road",
    "pavement": "ParkingBlock RoadShoulder Sidewalk",
    "tree": "Tree VegetationMisc",
    "sign symbol": "Misc_Text SignSymbol TrafficLight",
    "fence": "Fence",
    "car": "Car OtherMoving SUVPickupTruck Train Truck_Bus",
    "pedestrian": "Animal CartLuggagePram Child Pedestrian",
    "bicyclist": "Bicyclist MotorcycleScooter",
}


def test_camvid_in_11_of_32_colours(tmp_path: Path) -> None:
    camvid = camvid_colour(make_camvid_colour(tmp_path), 11)
    _, target = camvid.checked(camvid.samples("train")[0])
    found: dict[str, list[str]] = {}
    for name, index in zip(ORIGINAL, target.ravel().tolist(), strict=False):
        if index != 255:
            found.setdefault(SEGNET.names[index], []).append(name)
    assert {k: sorted(v) for k, v in found.items()} == {
        k: sorted(v.split()) for k, v in GROUPS.items()
    }


def test_the_table_of_colours_is_in_the_fingerprint(tmp_path: Path) -> None:
    root = make_camvid_colour(tmp_path)
    before = camvid_colour(root, 11).fingerprint("train")
    file = root / "class_dict.csv"
    file.write_text(
        file.read_text().replace("Sky,", "x,").replace("Car,", "Sky,").replace("x,", "Car,")
    )
    assert camvid_colour(root, 11).fingerprint("train") != before


def test_camvid_colours_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"label_set 32 needs the original colour masks"):
        camvid_colour(make_camvid(tmp_path / "a"), 32).samples("train")
    root = make_camvid_colour(tmp_path / "b")
    (root / "class_dict.csv").write_text("name,r,g,b\nSky,128,128,128\n")
    camvid = camvid_colour(root, 11)
    with pytest.raises(UserError, match=r"has colours of no class: \(.*\)"):
        camvid.read(camvid.samples("train")[0])
    (root / "class_dict.csv").write_text("name,r,g,b\nHeaven,128,128,128\n")
    camvid = camvid_colour(root, 11)
    with pytest.raises(UserError, match="'Heaven' is not one of CamVid's 32 classes"):
        camvid.read(camvid.samples("train")[0])


def test_void_alone_is_no_binary_mask(tmp_path: Path) -> None:
    roots = {"voc2012": make_voc(tmp_path)}
    voc = open_dataset("voc2012", "voc2012", None, PARTIAL, roots)
    sample = voc.samples("train")[0]
    mask = Image.open(sample.mask)
    values = np.where(np.array(mask) == 255, 255, 0).astype(np.uint8)
    for only in (values, np.full_like(values, 255)):
        saved = Image.fromarray(only)
        saved.putpalette(mask.getpalette())
        saved.save(sample.mask)
        assert np.array_equal(voc.read_target(sample), only)
    Image.fromarray(values).save(sample.mask)  # the same values in a grey image
    with pytest.raises(UserError, match="has only the grey values 0 and 255"):
        voc.read_target(sample)


def test_voc_colours() -> None:
    assert VOC.palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert dict(zip(VOC.names, VOC.palette, strict=True))["tv/monitor"] == (0, 64, 128)
    assert dict(zip(VOC.names, VOC.palette, strict=True))["person"] == (192, 128, 128)


def test_a_users_own_dataset() -> None:
    assert find("bench.datasets.camvid:CamVid") is DATASETS["camvid"]
    with pytest.raises(UserError, match="is not a subclass of bench.datasets.Dataset"):
        find("math:pi")


class Own(DATASETS["shapes"]):
    """Shapes for a test to break."""

    spoil = staticmethod(lambda image, target: (image, target))

    def read(self, sample):
        return self.spoil(*super().read(sample))


def test_what_a_dataset_reads_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(image, target):
        raise KeyError("boo")

    spoilt = {
        "target is int64": lambda i, t: (i, t.astype(np.int64)),
        "image is uint8 (96, 96), not uint8 with 3": lambda i, t: (i[..., 0], t),
        "have different sizes": lambda i, t: (i[:-1], t),
        "label 9 is not a class (0..5)": lambda i, t: (
            i,
            np.where(t == 1, 9, t).astype(np.uint8),
        ),
        "KeyError: 'boo'": fails,
    }
    own = open_dataset("own", f"{__name__}:Own", None, {}, {})
    samples = own.samples("train")
    for message, spoil in spoilt.items():
        monkeypatch.setattr(Own, "spoil", staticmethod(spoil))
        expected = r"^own, sample 'train/0000\d': .*" + re.escape(message)
        with pytest.raises(UserError, match=expected):
            _ = [own.checked(sample) for sample in samples[:9]]


def test_a_users_own_dataset_says_what_it_lacks() -> None:
    with pytest.raises(UserError, match="needs the class attributes title and splits"):
        find("bench.datasets.base:Dataset")


def test_the_real_camvid(shared: Path) -> None:
    camvid = open_dataset("camvid", "camvid", None, {}, {"camvid": shared / "data" / "camvid"})
    assert [len(camvid.samples(split)) for split in camvid.splits] == [367, 101, 233]
    image, target = camvid.read(camvid.samples("train")[0])
    assert image.shape == (360, 480, 3)
    assert set(np.unique(target)) <= {*range(SEGNET.num_classes), 255}


def test_the_real_part_of_voc(shared: Path) -> None:
    roots = {"voc2012": shared / "data" / "VOCdevkit"}
    voc = open_dataset("voc2012", "voc2012", None, {"partial": True}, roots)
    assert [len(voc.samples(split)) for split in ("train", "val")] == [437, 445]
    for sample in voc.samples("val")[::100]:
        _, target = voc.read(sample)
        assert (target == 255).any()  # the border around objects
