"""PASCAL VOC 2012 segmentation: 1,464 / 1,449 images, 21 classes with background."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bench.data.dataset import IGNORE_INDEX, Dataset, Labels, Pair, Sample
from bench.data.files import read_pair
from bench.errors import UserError

NUM_IMAGES = {"train": 1464, "val": 1449, "trainval": 2913}
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


def voc_colour(index: int) -> tuple[int, int, int]:
    """Return VOC's colour of a class: the bits of the index spread over the three channels."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * (7 - bit) + channel) & 1) << bit
    return channels[0], channels[1], channels[2]


LABELS = Labels(NAMES, tuple(voc_colour(index) for index in range(len(NAMES))))


class VOC2012(Dataset):
    """VOCdevkit layout; palette masks are read by index, the 255 border is void."""

    class Options(BaseModel):
        """What a suite may set."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        partial: bool = Field(
            False,
            description="accept lists that name only a part of the set",
            json_schema_extra={"identity": False},
        )

    title = "PASCAL VOC 2012 segmentation"
    splits = ("train", "val", "trainval")
    licence = "research use; images under the terms of Flickr"
    layout = (
        "Expected the VOCdevkit folder (or its VOC2012) with JPEGImages, SegmentationClass and "
        "ImageSets/Segmentation/{train,val,trainval}.txt."
    )
    citation = """@misc{pascal-voc-2012,
  author = {Everingham, M. and Van~Gool, L. and Williams, C. K. I. and Winn, J. and Zisserman, A.},
  title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2012 {(VOC2012)} {R}esults},
  year = {2012}
}"""

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return background and the 20 classes."""
        return LABELS

    def samples(self, split: str) -> Sequence[Sample]:
        """Read the split's list and find every file."""
        root = self.require_root()
        if (root / "VOC2012").is_dir():
            root = root / "VOC2012"
        file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not file.is_file():
            raise UserError(f"No file {file}. {self.layout}")
        samples = []
        for number, line in enumerate(file.read_text().split(), 1):
            image = root / "JPEGImages" / f"{line}.jpg"
            mask = root / "SegmentationClass" / f"{line}.png"
            for path in (image, mask):
                if not path.is_file():
                    raise UserError(f"{file}:{number}: no file {path}.")
            samples.append(Sample(line, image, mask))
        if len(samples) != NUM_IMAGES[split] and not self.options.partial:
            raise UserError(
                f"{file} names {len(samples)} images; VOC 2012 {split} has {NUM_IMAGES[split]}. "
                "Complete the folder, or set partial: true on the dataset to use a part "
                "(--set datasets.voc2012.partial=true)."
            )
        return samples

    def read(self, sample: Sample) -> Pair:
        """Decode one pair."""
        assert sample.image is not None
        assert sample.mask is not None
        return read_pair(sample.image, sample.mask, LABELS.num_classes, IGNORE_INDEX)

    def describe_split(self, split: str) -> str:
        """Name the split, and how much of it there is where that is not all."""
        num = len(self.samples(split))
        total = NUM_IMAGES[split]
        return split if num == total else f"{split} (part: {num} of {total})"
