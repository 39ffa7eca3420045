"""CamVid: 367 / 101 / 233 road scenes in SegNet's 11 classes, or the original 32."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.datasets.base import IGNORE_INDEX, Colour, Labels, OfficialOptions, Sample
from bench.datasets.image_files import FileDataset
from bench.datasets.lists import find_listed, read_class_file, read_pairs
from bench.datasets.masks import colours_of, map_labels, read_colours, read_mask
from bench.datasets.patterns import Pattern
from bench.errors import UserError

VOID = 11
SEGNET = Labels(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
# The original classes in the order of class_dict.csv: colour, and which of SegNet's 11 classes
# it belongs to (the grouping of Sturgess et al. 2009, which SegNet's masks follow).
ORIGINAL: dict[str, tuple[Colour, str | None]] = {
    "Animal": ((64, 128, 64), "pedestrian"),
    "Archway": ((192, 0, 128), "building"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), "building"),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign symbol"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), "car"),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "SignSymbol": ((192, 128, 128), "sign symbol"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "TrafficLight": ((0, 64, 64), "sign symbol"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Void": ((0, 0, 0), None),
    "Wall": ((64, 192, 0), "building"),
}
ALL = Labels(tuple(ORIGINAL), tuple(colour for colour, _ in ORIGINAL.values()))


class CamVid(FileDataset):
    """CamVid in two layouts: SegNet's lists with index masks, or class_dict.csv with colour masks.

    SegNet's {train,val,test}.txt list pairs "image mask"; mask label 11 is void. The original
    masks are {train,val,test}_labels/<image>_L.png and can be grouped into SegNet's 11 classes.
    With 32 classes, the classes have the order of class_dict.csv. Pixels of its class Void are
    void, so that class never occurs in the truth.
    """

    class Options(OfficialOptions):
        """What a suite may set."""

        label_set: Literal[11, 32] = Field(
            11,
            description="SegNet's 11 classes, or the original 32 (colour masks)",
        )

    unhashed_options = ("partial",)  # a fingerprint covers the images that exist
    later_options = ("label_set",)
    title = "CamVid (SegNet split, 11 classes)"
    splits = ("train", "val", "test")
    num_images = {"train": 367, "val": 101, "test": 233}
    licence = "research use; see the CamVid page of the University of Cambridge"
    layout = (
        "Expected: train.txt, val.txt and test.txt, each line an image and a mask path relative "
        "to that folder, as in the CamVid folder of the SegNet tutorial; or class_dict.csv with "
        "the folders train, train_labels, val, val_labels, test, test_labels."
    )
    citation = """@article{brostow2009semantic,
  author = {Brostow, Gabriel J. and Fauqueur, Julien and Cipolla, Roberto},
  title = {Semantic object classes in video: A high-definition ground truth database},
  journal = {Pattern Recognition Letters},
  volume = {30}, number = {2}, pages = {88--97}, year = {2009}
}"""

    def configure(self) -> None:
        """Set the title."""
        if self.options.label_set == 32:
            self.title = "CamVid (original 32 classes)"

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return SegNet's 11 classes, or the original 32."""
        return ALL if options.label_set == 32 else SEGNET

    def listed(self, split: str) -> Sequence[Sample]:
        """Read the split's list, or its folders if the masks are in colour."""
        root = self.require_root()
        if self._in_colour:
            here = [one.file for one in Pattern(root / split, "*").files()]
            images = [file for suffix in (".png", ".jpg") for file in here if file.suffix == suffix]
            if not images:
                raise UserError(f"No images in {root / split}. {self.layout}")
            masks = root / f"{split}_labels"
            return [Sample(image.stem, image, masks / f"{image.stem}_L.png") for image in images]
        if self.options.label_set == 32:
            raise UserError(
                "label_set 32 needs the original colour masks, but there is no "
                f"{root / 'class_dict.csv'}."
            )
        samples = []
        for one in read_pairs(root / f"{split}.txt", self.layout):
            # SegNet's own lists have absolute paths; they are read as relative to the root.
            image, mask = (
                find_listed(root, path.removeprefix("/SegNet/CamVid/"))
                for path in (one.image, one.mask)
            )
            samples.append(Sample(image.stem, image, mask))
        return samples

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Read an index mask, or a colour mask by class_dict.csv."""
        assert sample.mask is not None
        if self._in_colour:
            return read_colours(sample.mask, self._colours)
        to = {label: label for label in range(SEGNET.num_classes)} | {VOID: IGNORE_INDEX}
        mask = read_mask(sample.mask, colours_of(to, SEGNET.palette), exact=False)
        return map_labels(mask, to, sample.mask, SEGNET.palette)

    def defined_by(self) -> Sequence[Path]:
        """Return the table of colours."""
        return [self.require_root() / "class_dict.csv"] if self._in_colour else []

    def expected(self, split: str) -> int | None:
        """Return the size of SegNet's split; None for colour masks, which have several splits."""
        return None if self._in_colour else self.num_images[split]

    @cached_property
    def _in_colour(self) -> bool:
        return (self.require_root() / "class_dict.csv").is_file()

    @cached_property
    def _colours(self) -> dict[Colour, int]:
        """Class index of each colour of class_dict.csv."""
        file = self.require_root() / "class_dict.csv"
        names = self.labels(self.options).names
        found: dict[Colour, int] = {}
        for name, colour in read_class_file(file):
            if name not in ORIGINAL:
                raise UserError(f"{file}: {name!r} is not one of CamVid's 32 classes.")
            group = ORIGINAL[name][1]
            if group is None:
                found[colour] = IGNORE_INDEX
            else:
                found[colour] = names.index(name if self.options.label_set == 32 else group)
        return found
