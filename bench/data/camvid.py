"""CamVid in SegNet's split: 367 / 101 / 233 road scenes, 11 classes."""

from collections.abc import Sequence
from typing import Any

from bench.data.dataset import Dataset, Labels, Pair, Sample
from bench.data.files import read_pair
from bench.errors import UserError

VOID = 11
LABELS = Labels(
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


class CamVid(Dataset):
    """SegNet's layout: {train,val,test}.txt list pairs "image mask"; mask label 11 is void."""

    title = "CamVid (SegNet split, 11 classes)"
    splits = ("train", "val", "test")
    licence = "research use; see the CamVid page of the University of Cambridge"
    layout = (
        "Expected: train.txt, val.txt and test.txt, each line an image and a mask path relative "
        "to that folder, as in the CamVid folder of the SegNet tutorial."
    )
    citation = """@article{brostow2009semantic,
  author = {Brostow, Gabriel J. and Fauqueur, Julien and Cipolla, Roberto},
  title = {Semantic object classes in video: A high-definition ground truth database},
  journal = {Pattern Recognition Letters},
  volume = {30}, number = {2}, pages = {88--97}, year = {2009}
}"""

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return SegNet's 11 classes."""
        return LABELS

    def samples(self, split: str) -> Sequence[Sample]:
        """Read the split's list; SegNet's own absolute paths are taken below the root."""
        root = self.require_root()
        file = root / f"{split}.txt"
        if not file.is_file():
            raise UserError(f"No file {file}. {self.layout}")
        samples = []
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            parts = line.split()
            if len(parts) != 2:
                raise UserError(f"{file}:{number}: expected an image and a mask, not {line!r}.")
            image, mask = (root / part.removeprefix("/SegNet/CamVid/") for part in parts)
            for path in (image, mask):
                if not path.is_file():
                    raise UserError(f"{file}:{number}: no file {path}.")
            samples.append(Sample(image.stem, image, mask))
        return samples

    def read(self, sample: Sample) -> Pair:
        """Decode one pair."""
        assert sample.image is not None
        assert sample.mask is not None
        return read_pair(sample.image, sample.mask, LABELS.num_classes, VOID)
