"""Every dataset keeps its promises; each layout is tried on a tiny copy of the real one."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures import make_camvid, make_voc

from bench.data import DATASETS, Dataset, find, open_dataset
from bench.data.camvid import LABELS as CAMVID
from bench.data.voc2012 import LABELS as VOC
from bench.errors import UserError

MAKE: dict[str, Callable[[Path], Path]] = {"camvid": make_camvid, "voc2012": make_voc}
OPTIONS = {"voc2012": {"partial": True}}


@pytest.fixture(params=DATASETS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    name = request.param
    root = {name: MAKE[name](tmp_path)} if name in MAKE else {}
    return open_dataset(name, name, None, OPTIONS.get(name, {}), root)


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
    assert dataset.citation or not dataset.needs_root
    assert dataset.licence


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    camvid = open_dataset("camvid", "camvid", None, {}, {"camvid": make_camvid(tmp_path)})
    before = camvid.fingerprint("train"), camvid.fingerprint("val")
    file = tmp_path / "trainannot" / "a0.png"
    file.write_bytes(file.read_bytes() + b"x")
    assert camvid.fingerprint("train") != before[0]
    assert camvid.fingerprint("val") == before[1]


@pytest.mark.parametrize("name", MAKE)
def test_a_missing_root_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(UserError, match=f"--root {name}=PATH.*BENCH_DATA/{name}"):
        open_dataset(name, name, None, {}, {}).samples("train")
    with pytest.raises(UserError, match=r"No folder .*gone.*Expected"):
        open_dataset(name, name, None, {}, {name: tmp_path / "gone"}).samples("train")
    with pytest.raises(UserError, match=r"No file .*train.txt.*Expected"):
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
        ("train/a0.png trainannot/gone.png\n", r"train.txt:1: no file .*gone.png"),
    ],
)
def test_camvid_lists(tmp_path: Path, line: str, message: str) -> None:
    root = make_camvid(tmp_path)
    (root / "train.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        open_dataset("camvid", "camvid", None, {}, {"camvid": root}).samples("train")


def test_a_part_of_voc_must_be_asked_for(tmp_path: Path) -> None:
    roots = {"voc2012": make_voc(tmp_path)}
    with pytest.raises(UserError, match=r"names 2 images; VOC 2012 train has 1464.*partial"):
        open_dataset("voc2012", "voc2012", None, {}, roots).samples("train")
    part = open_dataset("voc2012", "voc2012", None, {"partial": True}, roots)
    assert part.describe_split("train") == "train (part: 2 of 1464)"
    _, target = part.read(part.samples("val")[0])
    assert sorted(set(target.flatten())) == [0, 1, 15, 20, 255]


def test_voc_colours() -> None:
    assert VOC.palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert dict(zip(VOC.names, VOC.palette, strict=True))["tv/monitor"] == (0, 64, 128)
    assert dict(zip(VOC.names, VOC.palette, strict=True))["person"] == (192, 128, 128)


def test_a_dataset_of_ones_own() -> None:
    assert find("bench.data.camvid:CamVid") is DATASETS["camvid"]
    with pytest.raises(UserError, match="is not a subclass of bench.data.Dataset"):
        find("math:pi")


class Own(DATASETS["shapes"]):
    """Shapes that a test spoils."""

    spoil = staticmethod(lambda image, target: (image, target))

    def read(self, sample):
        return self.spoil(*super().read(sample))


def test_what_a_dataset_reads_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(image, target):
        raise KeyError("boo")

    spoilt = {
        "target is int64": lambda i, t: (i, t.astype(np.int64)),
        "image is uint8 (96, 96), not uint8 with 3": lambda i, t: (i[..., 0], t),
        "do not belong together": lambda i, t: (i[:-1], t),
        "label 9 outside the classes 0..5 and 255": lambda i, t: (
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


def test_a_dataset_of_ones_own_says_what_it_lacks() -> None:
    with pytest.raises(UserError, match="lacks the class attribute title and splits"):
        find("bench.data.dataset:Dataset")


def test_the_real_camvid(shared: Path) -> None:
    camvid = open_dataset("camvid", "camvid", None, {}, {"camvid": shared / "data" / "camvid"})
    assert [len(camvid.samples(split)) for split in camvid.splits] == [367, 101, 233]
    image, target = camvid.read(camvid.samples("train")[0])
    assert image.shape == (360, 480, 3)
    assert set(np.unique(target)) <= {*range(CAMVID.num_classes), 255}


def test_the_real_part_of_voc(shared: Path) -> None:
    roots = {"voc2012": shared / "data" / "VOCdevkit"}
    voc = open_dataset("voc2012", "voc2012", None, {"partial": True}, roots)
    assert [len(voc.samples(split)) for split in ("train", "val")] == [437, 445]
    for sample in voc.samples("val")[::100]:
        _, target = voc.read(sample)
        assert (target == 255).any()  # the border around objects
