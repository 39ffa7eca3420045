"""IDD, the India Driving Dataset: segmentation parts I and II, with labels of four levels."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bench.datasets.base import IGNORE_INDEX, Colour, Labels, OfficialOptions, Sample
from bench.datasets.cityscapes import TRAINED
from bench.datasets.image_files import FileDataset
from bench.datasets.lists import find_listed, read_pairs
from bench.datasets.masks import colours_of, map_labels, read_mask
from bench.datasets.patterns import Pattern
from bench.errors import UserError

FOLDERS = {"I": "IDD_Segmentation", "II": "idd20kII"}
NUM_IMAGES_I = {"train": 6993, "val": 981}
LISTS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg")
UNLABELED = "unlabeled"


class Label(NamedTuple):
    """A row of the official table: what a label is in each label set; 255 is void."""

    name: str
    category: str
    colour: Colour
    cs_train_id: int
    levels: tuple[int, int, int, int]  # 1 (coarse) to 4 (fine)


TABLE = (
    Label("road", "drivable", (128, 64, 128), 0, (0, 0, 0, 0)),
    Label("parking", "drivable", (250, 170, 160), 255, (0, 1, 1, 1)),
    Label("drivable fallback", "drivable", (81, 0, 81), 255, (0, 1, 1, 2)),
    Label("sidewalk", "non-drivable", (244, 35, 232), 1, (1, 2, 2, 3)),
    Label("rail track", "non-drivable", (230, 150, 140), 255, (1, 3, 3, 3)),
    Label("non-drivable fallback", "non-drivable", (152, 251, 152), 9, (1, 3, 3, 4)),
    Label("person", "living-thing", (220, 20, 60), 11, (2, 4, 4, 5)),
    Label("animal", "living-thing", (246, 198, 145), 255, (2, 4, 4, 6)),
    Label("rider", "living-thing", (255, 0, 0), 12, (2, 5, 5, 7)),
    Label("motorcycle", "2-wheeler", (0, 0, 230), 17, (3, 6, 6, 8)),
    Label("bicycle", "2-wheeler", (119, 11, 32), 18, (3, 6, 7, 9)),
    Label("autorickshaw", "autorickshaw", (255, 204, 54), 255, (3, 7, 8, 10)),
    Label("car", "car", (0, 0, 142), 13, (3, 7, 9, 11)),
    Label("truck", "large-vehicle", (0, 0, 70), 14, (3, 8, 10, 12)),
    Label("bus", "large-vehicle", (0, 60, 100), 15, (3, 8, 11, 13)),
    Label("caravan", "large-vehicle", (0, 0, 90), 255, (3, 8, 12, 14)),
    Label("trailer", "large-vehicle", (0, 0, 110), 255, (3, 8, 12, 15)),
    Label("train", "large-vehicle", (0, 80, 100), 16, (3, 8, 12, 15)),
    Label("vehicle fallback", "large-vehicle", (136, 143, 153), 255, (3, 8, 12, 15)),
    Label("curb", "barrier", (220, 190, 40), 255, (4, 9, 13, 16)),
    Label("wall", "barrier", (102, 102, 156), 3, (4, 9, 14, 17)),
    Label("fence", "barrier", (190, 153, 153), 4, (4, 10, 15, 18)),
    Label("guard rail", "barrier", (180, 165, 180), 255, (4, 10, 16, 19)),
    Label("billboard", "structures", (174, 64, 67), 255, (4, 11, 17, 20)),
    Label("traffic sign", "structures", (220, 220, 0), 7, (4, 11, 18, 21)),
    Label("traffic light", "structures", (250, 170, 30), 6, (4, 11, 19, 22)),
    Label("pole", "structures", (153, 153, 153), 5, (4, 12, 20, 23)),
    Label("polegroup", "structures", (153, 153, 153), 255, (4, 12, 20, 23)),
    Label("obs-str-bar-fallback", "structures", (169, 187, 214), 255, (4, 12, 21, 24)),
    Label("building", "construction", (70, 70, 70), 2, (5, 13, 22, 25)),
    Label("bridge", "construction", (150, 100, 100), 255, (5, 13, 23, 26)),
    Label("tunnel", "construction", (150, 120, 90), 255, (5, 13, 23, 26)),
    Label("vegetation", "vegetation", (107, 142, 35), 8, (5, 14, 24, 27)),
    Label("sky", "sky", (70, 130, 180), 10, (6, 15, 25, 28)),
    Label("fallback background", "object fallback", (169, 187, 214), 255, (6, 15, 25, 29)),
    Label(UNLABELED, "void", (0, 0, 0), 255, (255, 255, 255, 255)),
    Label("ego vehicle", "void", (0, 0, 0), 255, (255, 255, 255, 255)),
    Label("rectification border", "void", (0, 0, 0), 255, (255, 255, 255, 255)),
    Label("out of roi", "void", (0, 0, 0), 255, (255, 255, 255, 255)),
    Label("license plate", "vehicle", (0, 0, 142), 255, (255, 255, 255, 255)),
)
# The value that each label is drawn with, by label set.
VALUES: dict[str, dict[str, int]] = {
    **{f"level{n}": {row.name: row.levels[n - 1] for row in TABLE} for n in (3, 1, 2, 4)},
    "csTrainId": {row.name: row.cs_train_id for row in TABLE},
}


def _merged(label_set: str) -> Labels:
    """Return the classes of a label set, named after all their labels, in the first's colour."""
    values = VALUES[label_set]
    names, palette = [], []
    for index in sorted(set(values.values()) - {IGNORE_INDEX}):
        rows = [row for row in TABLE if values[row.name] == index]
        # The classes of level 1 are whole categories of up to ten labels.
        parts = [row.category if label_set == "level1" else row.name for row in rows]
        names.append("/".join(dict.fromkeys(parts)))
        palette.append(rows[0].colour)
    return Labels(tuple(names), tuple(palette))


LABELS = {name: TRAINED if name == "csTrainId" else _merged(name) for name in VALUES}


def mask_ending(label_set: str) -> str:
    """Return the ending of label files, such as _gtFine_labellevel3Ids.png."""
    ending = label_set if label_set == "csTrainId" else f"{label_set}Id"
    return f"_gtFine_label{ending}s.png"


class IDD(FileDataset):
    """Parts I and II, whichever exist, or the images in your own lists.

    `bench data prepare idd` draws the label files from polygons.
    """

    class Options(OfficialOptions):
        """What a suite may set."""

        parts: Literal["I", "II", "both"] = Field(
            "both", description="which parts to read; both: all that exist"
        )
        label_set: Literal["level3", "level1", "level2", "level4", "csTrainId"] = Field(
            "level3",
            description="level3 has 26 classes, level1 7, level2 16, level4 30, csTrainId "
            "Cityscapes' 19",
        )
        void_as_class: bool = Field(
            False, description="count void pixels as one more class, the last, named unlabeled"
        )
        lists: str | None = Field(
            None,
            description="folder with train.csv, val.csv or test.csv for your own splits: one image "
            "and its mask per line, separated by a comma, relative to the root",
        )

        @model_validator(mode="after")
        def _lists_say_which_part(self) -> Self:
            if self.lists is not None and self.parts != "both":
                raise ValueError(
                    "Leave out parts if you give lists: the lists name the images of either part."
                )
            return self

    unhashed_options = ("partial", "lists")
    title = "IDD segmentation (parts I and II, level3, 26 classes)"
    splits: tuple[str, ...] = ("train", "val")
    withheld = {
        "test": "the labels of the test split are not public; use val, or your own lists.",
    }
    licence = "IDD licence, after registration at https://idd.insaan.iiit.ac.in"
    layout = (
        "Expected IDD_Segmentation (part I) or idd20kII (part II), or the folder that holds them. "
        "Each has leftImg8bit/{train,val}/<sequence>/<frame>_leftImg8bit.png or .jpg and "
        "gtFine/{train,val}/<sequence>/<frame>_gtFine_labellevel3Ids.png (or the label_set's). "
        "The download from https://idd.insaan.iiit.ac.in has polygons (*_gtFine_polygons.json) "
        "instead of label files: draw these with `bench data prepare idd --root PATH`."
    )
    citation = """@inproceedings{varma2019idd,
  author = {Varma, Girish and Subramanian, Anbumani and Namboodiri, Anoop and
            Chandraker, Manmohan and Jawahar, C. V.},
  title = {{IDD}: A dataset for exploring problems of autonomous navigation in unconstrained
           environments},
  booktitle = {IEEE Winter Conference on Applications of Computer Vision},
  pages = {1743--1751}, year = {2019}
}"""

    def configure(self) -> None:
        """Find the parts, and set the splits and the title."""
        options = self.options
        self._found = {part: folder for part in FOLDERS if (folder := self._folder(part))}
        if options.lists is not None:
            which = "own lists"
            given = tuple(split for split in LISTS if self._list(split).is_file())
            self.splits = given or LISTS
            self.withheld = {}  # the user's own test split has labels
        else:
            asked = tuple(FOLDERS) if options.parts == "both" else (options.parts,)
            which = " and ".join(tuple(self._found) or asked)
            which = f"parts {which}" if " " in which else f"part {which}"
        with_void = " + unlabeled" if options.void_as_class else ""
        num_classes = self.labels(options).num_classes
        self.title = (
            f"IDD segmentation ({which}, {options.label_set}{with_void}, {num_classes} classes)"
        )

    def _folder(self, part: str) -> Path | None:
        """Return the folder of a part; None if it was not asked for or does not exist."""
        root, asked, name = self.root, self.options.parts, FOLDERS[part]
        if root is None or asked not in (part, "both"):
            return None
        if (root / name).is_dir():
            return root / name
        names = {root.absolute().name, root.resolve().name}
        renamed = asked == part and names.isdisjoint(FOLDERS.values())
        is_it = (name in names or renamed) and (root / "leftImg8bit").is_dir()
        return root if is_it else None

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return the classes of the label set, and unlabeled if void is a class."""
        labels = LABELS[options.label_set]
        if not options.void_as_class:
            return labels
        return Labels((*labels.names, UNLABELED), (*labels.palette, (0, 0, 0)))

    def listed(self, split: str) -> Sequence[Sample]:
        """Return a sample for each image of the parts, by path, or for each line of the list."""
        if self.options.lists is not None:
            return self._by_list(split)
        return [
            sample
            for part, folder in self._parts().items()
            for sample in self._by_folder(FOLDERS[part], folder, split)
        ]

    def _parts(self) -> dict[str, Path]:
        root = self.require_root()
        if self._found:
            return self._found
        if self.options.parts != "both":
            name = FOLDERS[self.options.parts]
            raise UserError(f"Part {self.options.parts} not found: no {name} in {root}.")
        if (root / "leftImg8bit").is_dir():
            raise UserError(
                f"{root} is not named {' or '.join(FOLDERS.values())}. Set parts: I or parts: II "
                "to say which part it is."
            )
        raise UserError(f"No {' or '.join(FOLDERS.values())} in {root}. {self.layout}")

    def _by_folder(self, name: str, folder: Path, split: str) -> Sequence[Sample]:
        images_of = Pattern(folder / "leftImg8bit" / split, "*/*_leftImg8bit.*")
        images = {
            f"{name}/{split}/{image.parent.name}/{image.stem.removesuffix('_leftImg8bit')}": image
            for image in (found.file for found in images_of.files())
            if image.suffix in SUFFIXES
        }
        if not images:
            raise UserError(f"No images in {folder / 'leftImg8bit' / split}. {self.layout}")
        ending = mask_ending(self.options.label_set)
        masks = folder / "gtFine" / split
        return [
            Sample(one, image, masks / image.parent.name / f"{one.rpartition('/')[2]}{ending}")
            for one, image in images.items()
        ]

    def _list(self, split: str) -> Path:
        folder = Path(self.options.lists).expanduser()
        return self.beside_suite(folder, self.options.lists) / f"{split}.csv"

    def _by_list(self, split: str) -> Sequence[Sample]:
        root, file = self.require_root(), self._list(split)
        samples: dict[str, Sample] = {}
        for one in read_pairs(file, self.layout):
            self._check_label_set(one.mask, one.place)
            image, mask = find_listed(root, one.image), find_listed(root, one.mask)
            sample = Sample(_listed_id(image, root), image, mask)
            if sample.id in samples:
                raise UserError(f"{one.place}: {one.image} is listed twice.")
            samples[sample.id] = sample
        if not samples:
            raise UserError(f"{file} lists no images.")
        return list(samples.values())

    def _check_label_set(self, mask: str, place: str) -> None:
        """Refuse a mask whose name is that of another label set."""
        ending = mask_ending(self.options.label_set)
        if re.search(r"_gtFine_label\w+s\.png$", mask) and not mask.endswith(ending):
            raise UserError(
                f"{place}: {mask} is not of label_set {self.options.label_set}, whose masks end in "
                f"{ending}."
            )

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Read the label file."""
        assert sample.mask is not None
        num_classes = LABELS[self.options.label_set].num_classes
        to = {label: label for label in range(num_classes)}
        to[IGNORE_INDEX] = num_classes if self.options.void_as_class else IGNORE_INDEX
        # A frame of only road and void is not a binary mask.
        palette = self.labels(self.options).palette
        mask = read_mask(sample.mask, colours_of(to, palette), exact=False)
        return map_labels(mask, to, sample.mask, binary_advice="accept")

    @property
    def void(self) -> str:
        """How a protocol describes void pixels, such as "excluded"."""
        return "as a class" if self.options.void_as_class else "excluded"

    def expected(self, split: str) -> int | None:
        """Return the official number of images of part I; none is published for part II."""
        only_part_i = self.options.lists is None and tuple(self._found) == ("I",)
        return NUM_IMAGES_I.get(split) if only_part_i else None

    def unlisted(self) -> Sequence[Path]:
        """Return images and label files in no split; other files in gtFine are ignored."""
        ending = mask_ending(self.options.label_set)
        return [
            file
            for file in super().unlisted()
            if "_gtFine_" not in file.name or file.name.endswith(ending)
        ]


def _listed_id(image: Path, root: Path) -> str:
    """Return <part's folder>/<split>/<sequence>/<frame>, or the path relative to the root."""
    parts = image.with_name(image.stem.removesuffix("_leftImg8bit")).absolute().parts
    if "leftImg8bit" in parts[1:]:
        start = len(parts) - 1 - parts[::-1].index("leftImg8bit")
        return "/".join((parts[start - 1], *parts[start + 1 :]))
    below = len(root.absolute().parts) if image.is_relative_to(root) else 1
    return "/".join(parts[below:])
