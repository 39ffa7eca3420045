"""Cityscapes: 2,975 / 500 finely labelled street scenes in 19, 7 or 34 classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.datasets.base import IGNORE_INDEX, Colour, Labels, OfficialOptions, Sample
from bench.datasets.image_files import FileDataset
from bench.datasets.masks import colours_of, map_labels, read_mask
from bench.datasets.patterns import Pattern
from bench.errors import UserError

IMAGE, IDS, TRAIN_IDS = (
    "_leftImg8bit.png",
    "_gtFine_labelIds.png",
    "_gtFine_labelTrainIds.png",
)
VOID_CATEGORY = "void"


class Label(NamedTuple):
    """A row of the official table."""

    name: str
    id: int
    train_id: int
    category: str
    colour: Colour


# License plate, id -1, is left out: it is never drawn.
TABLE = (
    Label("unlabeled", 0, 255, "void", (0, 0, 0)),
    Label("ego vehicle", 1, 255, "void", (0, 0, 0)),
    Label("rectification border", 2, 255, "void", (0, 0, 0)),
    Label("out of roi", 3, 255, "void", (0, 0, 0)),
    Label("static", 4, 255, "void", (0, 0, 0)),
    Label("dynamic", 5, 255, "void", (111, 74, 0)),
    Label("ground", 6, 255, "void", (81, 0, 81)),
    Label("road", 7, 0, "flat", (128, 64, 128)),
    Label("sidewalk", 8, 1, "flat", (244, 35, 232)),
    Label("parking", 9, 255, "flat", (250, 170, 160)),
    Label("rail track", 10, 255, "flat", (230, 150, 140)),
    Label("building", 11, 2, "construction", (70, 70, 70)),
    Label("wall", 12, 3, "construction", (102, 102, 156)),
    Label("fence", 13, 4, "construction", (190, 153, 153)),
    Label("guard rail", 14, 255, "construction", (180, 165, 180)),
    Label("bridge", 15, 255, "construction", (150, 100, 100)),
    Label("tunnel", 16, 255, "construction", (150, 120, 90)),
    Label("pole", 17, 5, "object", (153, 153, 153)),
    Label("polegroup", 18, 255, "object", (153, 153, 153)),
    Label("traffic light", 19, 6, "object", (250, 170, 30)),
    Label("traffic sign", 20, 7, "object", (220, 220, 0)),
    Label("vegetation", 21, 8, "nature", (107, 142, 35)),
    Label("terrain", 22, 9, "nature", (152, 251, 152)),
    Label("sky", 23, 10, "sky", (70, 130, 180)),
    Label("person", 24, 11, "human", (220, 20, 60)),
    Label("rider", 25, 12, "human", (255, 0, 0)),
    Label("car", 26, 13, "vehicle", (0, 0, 142)),
    Label("truck", 27, 14, "vehicle", (0, 0, 70)),
    Label("bus", 28, 15, "vehicle", (0, 60, 100)),
    Label("caravan", 29, 255, "vehicle", (0, 0, 90)),
    Label("trailer", 30, 255, "vehicle", (0, 0, 110)),
    Label("train", 31, 16, "vehicle", (0, 80, 100)),
    Label("motorcycle", 32, 17, "vehicle", (0, 0, 230)),
    Label("bicycle", 33, 18, "vehicle", (119, 11, 32)),
)
CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


def _labels(rows: Sequence[Label]) -> Labels:
    return Labels(tuple(row.name for row in rows), tuple(row.colour for row in rows))


TRAINED = _labels([row for row in TABLE if row.train_id != IGNORE_INDEX])
FIRST_COLOURS = {row.category: row.colour for row in reversed(TABLE)}
LABELS: dict[int | str, Labels] = {
    19: TRAINED,
    "categories7": Labels(CATEGORIES, tuple(FIRST_COLOURS[name] for name in CATEGORIES)),
    "34ids": _labels(TABLE),
}
CATEGORY_INDEX = {name: index for index, name in enumerate(CATEGORIES)} | {
    VOID_CATEGORY: IGNORE_INDEX
}
FROM_IDS: dict[int | str, dict[int, int]] = {  # class index or 255 of each id
    19: {row.id: row.train_id for row in TABLE},
    "categories7": {row.id: CATEGORY_INDEX[row.category] for row in TABLE},
    "34ids": {row.id: row.id for row in TABLE},
}
FROM_TRAIN_IDS = {index: index for index in range(TRAINED.num_classes)}
TITLES: dict[int | str, str] = {19: "19 classes", "categories7": "7 categories", "34ids": "34 ids"}


class Cityscapes(FileDataset):
    """The fine annotations, read from labelIds or, for the 19 classes, also from labelTrainIds.

    A category includes all of its ids, even those that the official category score leaves out
    (parking, rail track, guard rail, bridge, tunnel, polegroup, caravan, trailer). Its colour is
    that of its first label, because there is no official one.
    """

    class Options(OfficialOptions):
        """What a suite may set."""

        label_set: Literal[19, "categories7", "34ids"] = Field(
            19,
            description="the 19 classes of the benchmark, its 7 categories, or all 34 ids, none "
            "of them void",
        )

    unhashed_options = ("partial",)  # a fingerprint covers the images that exist
    title = "Cityscapes (fine annotations, 19 classes)"
    splits = ("train", "val")
    num_images = {"train": 2975, "val": 500}
    withheld = {
        "test": "the labels of the test split are not public, and its gtFine files contain none; "
        "use val.",
    }
    licence = "Cityscapes licence: after registration, for non-commercial research"
    layout = (
        "Expected leftImg8bit/{train,val}/<city>/<city>_000000_000019_leftImg8bit.png and "
        "gtFine/{train,val}/<city>/<city>_000000_000019_gtFine_labelIds.png: the archives "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, after registration at "
        "https://www.cityscapes-dataset.com."
    )
    citation = """@inproceedings{cordts2016cityscapes,
  author = {Cordts, Marius and Omran, Mohamed and Ramos, Sebastian and Rehfeld, Timo and
            Enzweiler, Markus and Benenson, Rodrigo and Franke, Uwe and Roth, Stefan and
            Schiele, Bernt},
  title = {The {C}ityscapes dataset for semantic urban scene understanding},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {3213--3223}, year = {2016}
}"""

    def configure(self) -> None:
        """Set the title."""
        self.title = f"Cityscapes (fine annotations, {TITLES[self.options.label_set]})"

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return the classes of the label set."""
        return LABELS[options.label_set]

    def listed(self, split: str) -> Sequence[Sample]:
        """Return a sample for each image, by path."""
        folder = self.require_root() / "leftImg8bit" / split
        images = [found.file for found in Pattern(folder, f"*/*{IMAGE}").files()]
        if not images:
            raise UserError(f"No images in {folder}. {self.layout}")
        return [self._sample(split, image) for image in images]

    def _sample(self, split: str, image: Path) -> Sample:
        name = image.name.removesuffix(IMAGE)
        folder = self.require_root() / "gtFine" / split / image.parent.name
        ids, train_ids = folder / f"{name}{IDS}", folder / f"{name}{TRAIN_IDS}"
        if ids.is_file() or not train_ids.is_file():
            return Sample(name, image, ids)
        if self.options.label_set != 19:
            raise UserError(
                f"label_set {self.options.label_set} needs labelIds, but there is no {ids}; "
                f"{train_ids.name} has only the 19 classes. Unpack gtFine_trainvaltest.zip, or "
                "set label_set: 19."
            )
        return Sample(name, image, train_ids)

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Map ids to classes; train ids are class indices already."""
        assert sample.mask is not None
        in_train_ids = sample.mask.name.endswith(TRAIN_IDS)
        to = FROM_TRAIN_IDS if in_train_ids else FROM_IDS[self.options.label_set]
        to = to | {IGNORE_INDEX: IGNORE_INDEX}
        # A frame of only road and void is not a binary mask.
        palette = self.labels(self.options).palette
        mask = read_mask(sample.mask, colours_of(to, palette), exact=False)
        return map_labels(mask, to, sample.mask, binary_advice="accept")

    def expected(self, split: str) -> int | None:
        """Return the official number of images."""
        return self.num_images.get(split)

    def unlisted(self) -> Sequence[Path]:
        """Return images and labelIds in no split; other files in gtFine are ignored."""
        return [
            file
            for file in super().unlisted()
            if "_gtFine_" not in file.name or file.name.endswith(IDS)
        ]
