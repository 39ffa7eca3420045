"""PASCAL VOC 2007 and 2012: VOCdevkit's layout, 21 classes, void borders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.datasets.base import IGNORE_INDEX, Colour, Labels, OfficialOptions, Sample
from bench.datasets.image_files import FileDataset, beside
from bench.datasets.lists import read_names
from bench.datasets.masks import map_labels, read_mask

BACKGROUND = 0
NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv/monitor",
)


def voc_colour(index: int) -> Colour:
    """Return VOC's colour of a label: the bits of the index spread over the three channels."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * (7 - bit) + channel) & 1) << bit
    return channels[0], channels[1], channels[2]


LABELS = Labels(NAMES, tuple(voc_colour(index) for index in range(len(NAMES))))
PALETTE = {label: voc_colour(label) for label in (*range(len(NAMES)), IGNORE_INDEX)}


class VOC(FileDataset):
    """One year of VOC; palette masks are read by index, and the 255 border is void."""

    class Options(OfficialOptions):
        """What a suite may set."""

        void: Literal["ignore", "background"] = Field(
            "ignore",
            description="what the 255 border around objects counts as",
        )

    # A fingerprint covers the images that exist.
    unhashed_options: ClassVar[tuple[str, ...]] = ("partial",)
    later_options = ("void",)
    year: ClassVar[str]
    num_images: ClassVar[Mapping[str, int]]
    unions = {"trainval": ("train", "val")}
    licence = "research use; images under the terms of Flickr"

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return background and the 20 classes."""
        return LABELS

    @property
    def devkit(self) -> Path:
        """The folder VOC<year>: in the root, in its VOCdevkit, or the root itself."""
        root = self.require_root()
        inside = (root / f"VOC{self.year}", root / "VOCdevkit" / f"VOC{self.year}")
        return next((folder for folder in inside if folder.is_dir()), root)

    def listed(self, split: str) -> Sequence[Sample]:
        """Read the split's list of ids."""
        file = self.devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
        return [self.sample(one) for one in read_names(file, self.layout)]

    def sample(self, name: str) -> Sample:
        """Return the sample of an id."""
        image = self.devkit / "JPEGImages" / f"{name}.jpg"
        return Sample(name, image, self.devkit / "SegmentationClass" / f"{name}.png")

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Read the mask by index."""
        assert sample.mask is not None
        return self.mapped(read_mask(sample.mask, PALETTE), sample.mask)

    def mapped(self, mask: NDArray[np.uint8], file: Path) -> NDArray[np.uint8]:
        """Turn VOC's labels into class indices and 255."""
        void = IGNORE_INDEX if self.options.void == "ignore" else BACKGROUND
        to = {label: label for label in range(len(NAMES))} | {IGNORE_INDEX: void}
        # A mask of only background and void is not binary; read_mask refuses grey 0/255 masks.
        return map_labels(mask, to, file, LABELS.palette, binary_advice="accept")

    @property
    def void(self) -> str:
        """How a protocol describes the border, such as "excluded"."""
        return "excluded" if self.options.void == "ignore" else "as background"

    def expected(self, split: str) -> int | None:
        """Return the official number of images."""
        return self.num_images.get(split)

    def unlisted(self) -> Sequence[Path]:
        """Return masks in no split; most images belong to other tasks and have none."""
        return beside([s.mask for s in self.listed_anywhere() if s.mask is not None])


class VOC2007(VOC):
    """The dataset of the 2007 challenge, whose test labels are public."""

    title = "PASCAL VOC 2007 segmentation"
    year = "2007"
    splits = ("train", "val", "trainval", "test")
    num_images = {"train": 209, "val": 213, "trainval": 422, "test": 210}
    layout = (
        "Expected the VOCdevkit folder (or its VOC2007) with JPEGImages, SegmentationClass and "
        "ImageSets/Segmentation/{train,val,trainval,test}.txt; test is a separate archive."
    )
    citation = """@misc{pascal-voc-2007,
  author = {Everingham, M. and Van~Gool, L. and Williams, C. K. I. and Winn, J. and Zisserman, A.},
  title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2007 {(VOC2007)} {R}esults},
  year = {2007}
}"""


CITATION = """@misc{pascal-voc-2012,
  author = {Everingham, M. and Van~Gool, L. and Williams, C. K. I. and Winn, J. and Zisserman, A.},
  title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2012 {(VOC2012)} {R}esults},
  year = {2012}
}"""


class VOC2012(VOC):
    """The dataset of the 2012 challenge, whose test labels are not public."""

    title = "PASCAL VOC 2012 segmentation"
    year = "2012"
    splits = ("train", "val", "trainval")
    num_images = {"train": 1464, "val": 1449, "trainval": 2913}
    withheld = {
        "test": "the labels of the test split are not public; use val.",
    }
    layout = (
        "Expected the VOCdevkit folder (or its VOC2012) with JPEGImages, SegmentationClass and "
        "ImageSets/Segmentation/{train,val,trainval}.txt."
    )
    citation = CITATION
