import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import IDD_ENDINGS, IDD_FRAMES, IDD_NUM_CLASSES, make_idd
from PIL import Image
from pydantic import ValidationError

from bench.datasets.base import FileFault
from bench.datasets.idd import IDD, LABELS, TABLE, VALUES
from bench.datasets.tools import rasterise as module
from bench.datasets.tools.rasterise import Prepared, prepare, rasterise
from bench.errors import UserError

# Typed from the official table: level 1, 2, 3, 4, csTrainId.
PICKED = {
    "road": (0, 0, 0, 0, 0),
    "parking": (0, 1, 1, 1, 255),
    "drivable fallback": (0, 1, 1, 2, 255),
    "sidewalk": (1, 2, 2, 3, 1),
    "rail track": (1, 3, 3, 3, 255),
    "non-drivable fallback": (1, 3, 3, 4, 9),
    "animal": (2, 4, 4, 6, 255),
    "bicycle": (3, 6, 7, 9, 18),
    "autorickshaw": (3, 7, 8, 10, 255),
    "caravan": (3, 8, 12, 14, 255),
    "train": (3, 8, 12, 15, 16),
    "guard rail": (4, 10, 16, 19, 255),
    "polegroup": (4, 12, 20, 23, 255),
    "obs-str-bar-fallback": (4, 12, 21, 24, 255),
    "tunnel": (5, 13, 23, 26, 255),
    "vegetation": (5, 14, 24, 27, 8),
    "sky": (6, 15, 25, 28, 10),
    "fallback background": (6, 15, 25, 29, 255),
    "out of roi": (255, 255, 255, 255, 255),
    "license plate": (255, 255, 255, 255, 255),
}


def opened(root: Path | None, **options: object) -> IDD:
    return IDD(root, IDD.Options.model_validate(options))


def ids(dataset: IDD, split: str) -> list[str]:
    return [sample.id for sample in dataset.samples(split)]


def polygons(file: Path, objects: list[dict[str, Any]], size: tuple[int, int] = (4, 6)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
    file.write_text(json.dumps(frame))
    return file


def box(label: str, x0: int, y0: int, x1: int, y1: int, **more: object) -> dict[str, Any]:
    """Polygons include their corners."""
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


@pytest.mark.parametrize("label", PICKED)
def test_the_table(label: str) -> None:
    sets = ("level1", "level2", "level3", "level4", "csTrainId")
    assert tuple(VALUES[one][label] for one in sets) == PICKED[label]


@pytest.mark.parametrize("label_set", IDD_NUM_CLASSES)
def test_the_classes_of_a_label_set(label_set: str) -> None:
    values = set(VALUES[label_set].values()) - {255}
    assert values == set(range(IDD_NUM_CLASSES[label_set]))
    labels = IDD.labels(IDD.Options(label_set=label_set))
    assert labels.num_classes == IDD_NUM_CLASSES[label_set] == len(labels.palette)
    assert len(set(labels.names)) == labels.num_classes
    # The table gives the last two fallbacks of level 4 the same colour.
    assert len(set(labels.palette)) == labels.num_classes - (label_set == "level4")


def test_the_whole_table() -> None:
    assert len(TABLE) == len(VALUES["level3"]) == 40
    assert sum(value == 255 for value in VALUES["level3"].values()) == 5
    assert sum(value == 255 for value in VALUES["csTrainId"].values()) == 40 - 19
    # Classes nest in those of the coarser level; level 4 joins sidewalk and rail track, so it nests
    # in level 1 only.
    for finer, coarser in (("level3", "level2"), ("level2", "level1"), ("level4", "level1")):
        joined = {(VALUES[finer][row.name], VALUES[coarser][row.name]) for row in TABLE}
        assert len(joined) == IDD_NUM_CLASSES[finer] + 1


def test_names_and_colours() -> None:
    names = LABELS["level3"].names
    colours = dict(zip(names, LABELS["level3"].palette, strict=True))
    assert names[1] == "parking/drivable fallback"
    assert names[12] == "caravan/trailer/train/vehicle fallback"
    assert names[17] == "billboard"
    assert names[25] == "sky/fallback background"
    assert colours["sky/fallback background"] == (70, 130, 180)
    assert colours["autorickshaw"] == (255, 204, 54)
    assert LABELS["level1"].names == (
        "drivable",
        "non-drivable",
        "living-thing",
        "2-wheeler/autorickshaw/car/large-vehicle",
        "barrier/structures",
        "construction/vegetation",
        "sky/object fallback",
    )
    assert LABELS["level2"].names[9] == "curb/wall"
    assert LABELS["level4"].names[3] == "sidewalk/rail track"


def test_the_cityscapes_classes_have_the_colours_of_the_table() -> None:
    for row in TABLE:
        if row.cs_train_id != 255:
            assert LABELS["csTrainId"].palette[row.cs_train_id] == row.colour
            shown = "terrain" if row.name == "non-drivable fallback" else row.name
            assert LABELS["csTrainId"].names[row.cs_train_id] == shown


@pytest.mark.parametrize("label_set", IDD_NUM_CLASSES)
def test_masks_are_read_as_they_are(tmp_path: Path, label_set: str) -> None:
    make_idd(tmp_path, label_set=label_set)
    for void, index in ((False, 255), (True, IDD_NUM_CLASSES[label_set])):
        dataset = opened(tmp_path, label_set=label_set, void_as_class=void)
        _, target = dataset.checked(dataset.samples("train")[0])
        assert target[0].tolist() == [*range(IDD_NUM_CLASSES[label_set]), index]


def test_void_as_a_class_gives_27_outputs() -> None:
    labels = IDD.labels(IDD.Options(void_as_class=True))
    assert labels.num_classes == 27
    assert labels.names[26] == "unlabeled"
    assert labels.palette[26] == (0, 0, 0)
    assert labels.names[:26] == LABELS["level3"].names


def test_both_parts_are_read_where_they_are_there(tmp_path: Path) -> None:
    dataset = opened(make_idd(tmp_path))
    assert ids(dataset, "train") == [
        "IDD_Segmentation/train/0/frame0000",
        "IDD_Segmentation/train/12/frame0000",
        "idd20kII/train/201/frame0029",
        "idd20kII/train/7/0000075",
    ]
    assert dataset.title == "IDD segmentation (parts I and II, level3, 26 classes)"
    assert dataset.describe_split("train") == "train"
    image, target = dataset.checked(dataset.samples("val")[1])
    assert image.shape == (1, 27, 3)
    assert target.shape == (1, 27)


def test_one_part_is_read_from_any_of_its_places(tmp_path: Path) -> None:
    make_idd(tmp_path)
    for root in (tmp_path, tmp_path / "idd20kII"):
        for asked in ("II", "both") if root != tmp_path else ("II",):
            dataset = opened(root, parts=asked)
            assert ids(dataset, "val") == ["idd20kII/val/201/frame0029"]
            assert dataset.title.startswith("IDD segmentation (part II, ")
    renamed = (tmp_path / "idd20kII").rename(tmp_path / "mine")
    assert ids(opened(renamed, parts="II"), "val") == ["idd20kII/val/201/frame0029"]
    with pytest.raises(UserError, match="mine is not named IDD_Segmentation or idd20kII.*: I"):
        opened(renamed).samples("val")


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    make_idd(tmp_path, ("idd20kII",))
    assert len(opened(tmp_path).samples("train")) == 2
    with pytest.raises(UserError, match="Part I not found: no IDD_Segmentation in "):
        opened(tmp_path, parts="I").samples("train")
    with pytest.raises(UserError, match="Part I not found: no IDD_Segmentation in "):
        opened(tmp_path / "idd20kII", parts="I").samples("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"No IDD_Segmentation or idd20kII in .*Expected"):
        opened(tmp_path / "empty").samples("train")


def test_a_part_of_part_one_must_be_asked_for(tmp_path: Path) -> None:
    make_idd(tmp_path)
    for split, num in (("train", 6993), ("val", 981)):
        assert opened(tmp_path, parts="I").expected(split) == num
        assert opened(tmp_path, parts="II").expected(split) is None
        assert opened(tmp_path).expected(split) is None
    with pytest.raises(
        UserError, match=r"'train' has 2 images; the official split has 6993.*partial"
    ):
        opened(tmp_path, parts="I").samples("train")
    dataset = opened(tmp_path, parts="I", partial=True)
    assert dataset.describe_split("val") == "val (part: 1 of 981)"


def test_test_has_no_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="IDD.*labels of the test split are not public"):
        opened(make_idd(tmp_path)).samples("test")


def test_missing_labels_are_to_be_made(tmp_path: Path) -> None:
    make_idd(tmp_path)
    with pytest.raises(
        UserError, match=r"no file .*frame0000_gtFine_labellevel1Ids\.png.*bench data prepare idd"
    ):
        opened(tmp_path, label_set="level1").samples("train")
    for file in (tmp_path / "idd20kII" / "leftImg8bit" / "val").rglob("*.jpg"):
        file.unlink()
    with pytest.raises(UserError, match=r"No images in .*idd20kII/leftImg8bit/val"):
        opened(tmp_path, parts="II").samples("val")


def test_a_label_outside_the_set(tmp_path: Path) -> None:
    dataset = opened(make_idd(tmp_path))
    sample = dataset.samples("val")[0]
    Image.fromarray(np.full((1, 27), 26, np.uint8)).save(sample.mask)
    with pytest.raises(UserError, match=r"not allowed: 26 \(27 pixels\)\. Allowed: 0\.\.25, 255"):
        dataset.read(sample)


def test_road_and_void_alone_are_no_binary_mask(tmp_path: Path) -> None:
    dataset = opened(make_idd(tmp_path))
    sample = dataset.samples("val")[0]
    mask = np.array([[0, 255] * 13 + [0]], np.uint8)
    Image.fromarray(mask).save(sample.mask)
    assert dataset.checked(sample)[1].tolist() == mask.tolist()


def test_unlisted_files(tmp_path: Path) -> None:
    dataset = opened(make_idd(tmp_path))
    folder = tmp_path / "idd20kII" / "gtFine" / "train" / "7"
    stray = folder / "0000099_gtFine_labellevel3Ids.png"
    derived = ("0000075_gtFine_instancelevel3Ids.png", "0000075_gtFine_labellevel1Ids.png")
    assert dataset.unlisted() == []
    for file in (stray, *(folder / name for name in derived)):
        file.write_bytes(b"")
    assert dataset.unlisted() == [stray]


def write_lists(folder: Path, lists: dict[str, list[str]]) -> Path:
    folder.mkdir(exist_ok=True)
    for split, lines in lists.items():
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def pair(part: str, frame: str, split: str = "train", root: str = "") -> str:
    suffix = IDD_FRAMES[part][0]
    return (
        f"{root}{part}/leftImg8bit/{split}/{frame}_leftImg8bit.{suffix},"
        f"{root}{part}/gtFine/{split}/{frame}_gtFine_labellevel3Ids.png"
    )


def test_a_users_own_lists(tmp_path: Path) -> None:
    make_idd(tmp_path)
    first, second = pair("idd20kII", "201/frame0029"), pair("idd20kII", "7/0000075")
    lists = write_lists(
        tmp_path / "lists",
        {
            "train": ["img,label", first, pair("IDD_Segmentation", "0/frame0000")],
            "test": [pair("idd20kII", "7/0000075", root=f"{tmp_path}/")],
        },
    )
    dataset = opened(tmp_path, lists=str(lists), void_as_class=True)
    assert dataset.splits == ("train", "test")
    assert "test" not in dataset.withheld
    assert "test" in IDD.withheld
    assert ids(dataset, "train") == [
        "idd20kII/train/201/frame0029",
        "IDD_Segmentation/train/0/frame0000",
    ]
    assert ids(dataset, "test") == ["idd20kII/train/7/0000075"]
    assert dataset.expected("train") is None
    assert dataset.title == "IDD segmentation (own lists, level3 + unlabeled, 27 classes)"
    _, target = dataset.checked(dataset.samples("test")[0])
    assert target.max() == 26
    with pytest.raises(UserError, match="Unknown split 'val'"):
        dataset.samples("val")
    # Ids stay the same if the root is the part's own folder.
    lines = [line.replace("idd20kII/", "") for line in (first, second)]
    inner = opened(
        tmp_path / "idd20kII", lists=str(write_lists(tmp_path / "inner", {"val": lines}))
    )
    assert ids(inner, "val") == ["idd20kII/train/201/frame0029", "idd20kII/train/7/0000075"]


def test_the_folder_of_lists_changes_no_fingerprint(tmp_path: Path) -> None:
    make_idd(tmp_path)
    frames = ("201/frame0029", "7/0000075")
    prints = [
        opened(
            tmp_path,
            lists=str(write_lists(tmp_path / name, {"train": [pair("idd20kII", frame)]})),
        ).fingerprint("train")
        for name, frame in (("a", frames[0]), ("b", frames[0]), ("c", frames[1]))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_images_elsewhere_have_their_path_as_id(tmp_path: Path) -> None:
    make_idd(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name)
    lists = write_lists(tmp_path / "lists", {"train": ["a.png,m.png", "b.png,m.png"]})
    listed = opened(tmp_path, lists=str(lists)).listed("train")
    assert [sample.id for sample in listed] == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png"], r"train\.csv:1: expected an image and a mask, not 'a\.png'"),
        (["a.png,b.png,c.png"], r"train\.csv:1: expected an image and a mask"),
        (["img,label"], r"train\.csv lists no images"),
        (["a.png,b.png", "a.png,b.png"], r"train\.csv:2: a\.png is listed twice"),
        (["a.png,gone.png"], r"no file .*a\.png"),
        (
            ["a.png,x_gtFine_labellevel1Ids.png"],
            r"train\.csv:1: x_gtFine_labellevel1Ids\.png is not of label_set level3",
        ),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, lines: list[str], message: str) -> None:
    lists = write_lists(tmp_path / "lists", {"train": lines})
    with pytest.raises(UserError, match=message):
        opened(tmp_path, lists=str(lists)).samples("train")


def test_options(tmp_path: Path) -> None:
    for wrong in ({"parts": "III"}, {"label_set": "level5"}, {"parts": "I", "lists": "x"}):
        with pytest.raises(ValidationError):
            opened(None, **wrong)
    with pytest.raises(UserError, match=r"No file .*gone/train\.csv"):
        opened(tmp_path, lists=str(tmp_path / "gone")).samples("train")


def test_later_polygons_lie_over_earlier_ones(tmp_path: Path) -> None:
    file = polygons(
        tmp_path / "a_gtFine_polygons.json",
        [
            box("road", 0, 2, 5, 3),
            box("car", 1, 1, 3, 2),
            box("sky", 0, 0, 5, 0, deleted=1),
            box("person", 3, 2, 4, 3, deleted=0),
            box("license plate", 2, 2, 2, 2),
        ],
    )
    v = 255
    assert rasterise(file, "level3").tolist() == [
        [v, v, v, v, v, v],
        [v, 9, 9, 9, v, v],
        [0, 9, v, 4, 4, 0],
        [0, 0, 0, 4, 4, 0],
    ]
    assert rasterise(file, "csTrainId").tolist()[3] == [0, 0, 0, 11, 11, 0]
    assert rasterise(file, "level1").tolist()[1] == [v, 3, 3, 3, v, v]
    assert rasterise(file, "level3").dtype == np.uint8


def test_a_triangle_and_points_outside(tmp_path: Path) -> None:
    triangle = {"label": "sky", "polygon": [[0, 0], [3, 0], [0, 3]]}
    file = polygons(tmp_path / "t_gtFine_polygons.json", [triangle], (4, 4))
    inside = (rasterise(file, "level3") == 25).tolist()
    assert inside == [[x + y <= 3 for x in range(4)] for y in range(4)]
    far = polygons(tmp_path / "f_gtFine_polygons.json", [box("sky", -9, -9, 99, 1)], (3, 3))
    assert rasterise(far, "level3").tolist() == [[25] * 3, [25] * 3, [255] * 3]


def test_groups(tmp_path: Path) -> None:
    objects = [box("cargroup", 0, 0, 2, 1), box("polegroup", 3, 0, 5, 1)]
    file = polygons(tmp_path / "g_gtFine_polygons.json", objects, (2, 6))
    assert rasterise(file, "level3")[0].tolist() == [9, 9, 9, 20, 20, 20]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"objects": [box("tree", 0, 0, 1, 1)]}, "Unknown label 'tree'"),
        ({"objects": [box("treegroup", 0, 0, 1, 1)]}, "Unknown label 'treegroup'"),
        ({"objects": [{"label": "sky"}]}, r"objects\.0\.polygon: Field required"),
        ({"objects": [{"label": "sky", "polygon": [[1]]}]}, r"at objects\.0\.polygon\.0"),
        ({"objects": [{"label": "sky", "polygon": [[1, 1]]}]}, "cannot draw a polygon of 'sky'"),
        ({"objects": [], "imgWidth": 0}, "imgWidth: Input should be greater than 0"),
        ("{", "not an IDD polygon file: Invalid JSON"),
    ],
)
def test_polygons_that_are_wrong(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "a_gtFine_polygons.json"
    frame = {"imgHeight": 2, "imgWidth": 2}
    file.write_text(content if isinstance(content, str) else json.dumps(frame | content))
    with pytest.raises(FileFault, match=rf"a_gtFine_polygons\.json: .*{message}"):
        rasterise(file, "level3")
    with pytest.raises(FileFault, match="Cannot read .*gone"):
        rasterise(tmp_path / "gone", "level3")
    with pytest.raises(UserError, match="Unknown label set 'level5'"):
        rasterise(file, "level5")


def make_polygons(root: Path, num: int = 3) -> list[Path]:
    folder = root / "idd20kII" / "gtFine" / "train" / "201"
    return [
        polygons(folder / f"frame{i}_gtFine_polygons.json", [box("sky", 0, 0, 5, i)])
        for i in range(num)
    ]


def drawn(file: Path) -> Path:
    return file.with_name(file.name.replace("_polygons.json", "_labellevel3Ids.png"))


def prepared(root: Path, label_set: str = "level3", num_workers: int = 0) -> Prepared:
    return prepare(root, label_set, num_workers, lambda done, total: None)


def test_prepare_goes_on_where_it_was(tmp_path: Path) -> None:
    files = make_polygons(tmp_path)
    seen: list[tuple[int, int]] = []
    made = prepare(tmp_path, "level3", 0, lambda done, total: seen.append((done, total)))
    assert made == Prepared(3, 0, ())
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert np.asarray(Image.open(drawn(files[1]))).tolist() == [[25] * 6] * 2 + [[255] * 6] * 2
    assert prepared(tmp_path) == Prepared(0, 3, ())
    later = time.time_ns() + 10**9
    polygons(files[0], [box("road", 0, 0, 5, 3)])
    os.utime(files[0], ns=(later, later))
    assert prepared(tmp_path) == Prepared(1, 2, ())
    assert np.asarray(Image.open(drawn(files[0]))).tolist() == [[0] * 6] * 4
    assert prepared(tmp_path, "csTrainId") == Prepared(3, 0, ())
    assert len(list(tmp_path.rglob("*.png"))) == 6


def test_prepare_in_parallel_follows_links(tmp_path: Path) -> None:
    make_polygons(tmp_path / "far", 2)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "idd20kII").symlink_to(tmp_path / "far" / "idd20kII")
    assert prepared(tmp_path / "root", num_workers=2) == Prepared(2, 0, ())
    assert prepared(tmp_path / "root", num_workers=2) == Prepared(0, 2, ())


def test_prepare_lists_faults_and_goes_on(tmp_path: Path) -> None:
    files = make_polygons(tmp_path)
    files[0].write_text("{")
    polygons(files[2], [box("tree", 0, 0, 1, 1)])
    done = prepared(tmp_path)
    assert (done.made, done.kept, len(done.faults)) == (1, 0, 2)
    assert str(files[0]) in done.faults[0]
    assert "Unknown label 'tree'" in done.faults[1]
    assert not drawn(files[0]).exists()
    assert prepared(tmp_path).kept == 1


def test_a_killed_run_leaves_no_half_file(tmp_path: Path) -> None:
    (file,) = make_polygons(tmp_path, 1)
    code = (
        "import os, signal\nfrom pathlib import Path\n"
        "from bench.datasets.tools.rasterise import prepare\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"prepare(Path({str(tmp_path)!r}), 'level3', 0, lambda *_: None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not drawn(file).exists()
    assert prepared(tmp_path) == Prepared(1, 0, ())


def test_a_process_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(module.ProcessPoolExecutor):
        def map(self, *args: Any, **kwargs: Any) -> Any:
            raise BrokenProcessPool("killed")

    make_polygons(tmp_path)
    monkeypatch.setattr(module, "ProcessPoolExecutor", Dying)
    with pytest.raises(UserError, match="A worker process died.*fewer workers"):
        prepared(tmp_path, num_workers=1)


def test_prepare_needs_polygons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No \*_gtFine_polygons\.json below .*Expected"):
        prepared(tmp_path)
    with pytest.raises(UserError, match=r"No \*_gtFine_polygons\.json below .*gone"):
        prepared(tmp_path / "gone")
    with pytest.raises(UserError, match="Unknown label set"):
        prepared(tmp_path, "ids")


def test_what_is_prepared_can_be_read(tmp_path: Path) -> None:
    make_idd(tmp_path, ("idd20kII",))
    folder = tmp_path / "idd20kII"
    for mask in folder.rglob(f"*{IDD_ENDINGS['level3']}"):
        mask.unlink()
        name = mask.name.replace("_labellevel3Ids.png", "_polygons.json")
        polygons(mask.with_name(name), [box("curb", 0, 0, 26, 0)], (1, 27))
    with pytest.raises(UserError, match="bench data prepare idd"):
        opened(tmp_path).samples("train")
    assert prepared(tmp_path).made == 3
    dataset = opened(tmp_path)
    assert {int(dataset.checked(s)[1].max()) for s in dataset.samples("train")} == {13}
