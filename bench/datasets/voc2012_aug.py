"""PASCAL VOC 2012 with SBD's annotations: 10,582 training images, VOC's own 1,449 for val."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.datasets.base import FileFault, Sample
from bench.datasets.lists import read_names
from bench.datasets.patterns import Pattern
from bench.datasets.voc import CITATION, VOC
from bench.errors import UserError

SPLITS = ("train", "val", "trainval")


class VOC2012Aug(VOC):
    """VOC 2012 with more training images, which SBD annotates; val is VOC's own.

    SBD's masks are the PNGs in VOC2012/SegmentationClassAug if that folder exists, else the .mat
    files of SBD's benchmark_RELEASE. With the .mat files, images of VOC's train keep VOC's own
    masks. Images of VOC's val are never in train.
    """

    class Options(VOC.Options):
        """What a suite may set."""

        sbd: str | None = Field(
            None,
            description="folder benchmark_RELEASE; by default searched for next to VOC2012",
        )

    unhashed_options = ("partial", "sbd")
    title = "PASCAL VOC 2012 + SBD segmentation"
    year = "2012"
    splits = SPLITS
    num_images = {"train": 10582, "val": 1449, "trainval": 12031}
    layout = (
        "Expected the VOCdevkit folder with VOC2012 and either VOC2012/SegmentationClassAug/*.png "
        "or benchmark_RELEASE/dataset/{cls,img,train.txt,val.txt} of SBD next to it (option sbd)."
    )
    citation = f"""{CITATION}
@inproceedings{{hariharan2011semantic,
  author = {{Hariharan, Bharath and Arbel{{\\'a}}ez, Pablo and Bourdev, Lubomir and
            Maji, Subhransu and Malik, Jitendra}},
  title = {{Semantic contours from inverse detectors}},
  booktitle = {{International Conference on Computer Vision}},
  year = {{2011}}
}}"""

    def listed(self, split: str) -> Sequence[Sample]:
        """Return VOC's val, or VOC's train with the images that SBD adds, sorted by id."""
        val, train = self._voc("val"), self._voc("train")
        if split == "val":
            return [super(VOC2012Aug, self).sample(name) for name in val]
        names = sorted({*train, *self._added} - set(val))
        samples = [self.sample(name) for name in names]
        if split == "trainval":
            samples += [super(VOC2012Aug, self).sample(name) for name in val]
        return samples

    def sample(self, name: str) -> Sample:
        """Return a training sample with its PNG mask, else VOC's own mask, else SBD's .mat file."""
        voc = super().sample(name)
        if self._pngs is not None:
            return Sample(name, voc.image, self._pngs / f"{name}.png")
        if voc.mask is not None and voc.mask.is_file():
            return voc
        sbd = self._sbd
        image = sbd / "img" / f"{name}.jpg"
        return Sample(name, image if image.is_file() else voc.image, sbd / "cls" / f"{name}.mat")

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Read a palette PNG by index, or the matrix GTcls.Segmentation of a .mat file."""
        assert sample.mask is not None
        if sample.mask.suffix != ".mat":
            return super().read_target(sample)
        return self.mapped(read_mat(sample.mask), sample.mask)

    def unlisted(self) -> Sequence[Path]:
        """Return masks whose id is in no split; one id may have several masks."""
        known = {sample.id for sample in self.listed_anywhere()}
        return [file for file in super().unlisted() if file.stem not in known]

    def _voc(self, split: str) -> list[str]:
        file = self.devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
        return read_names(file, self.layout)

    @property
    def _pngs(self) -> Path | None:
        folder = self.devkit / "SegmentationClassAug"
        return folder if folder.is_dir() else None

    @cached_property
    def _added(self) -> list[str]:
        """The ids that SBD annotates; some of them are in VOC's val."""
        if self._pngs is None:
            lists = (self._sbd / f"{part}.txt" for part in ("train", "val"))
            return sorted({name for file in lists for name in read_names(file, self.layout)})
        given = self.devkit / "ImageSets" / "Segmentation" / "trainaug.txt"
        if not given.is_file():
            return sorted(found.stem for found in Pattern(self._pngs, "*.png").files())
        names = read_names(given, self.layout)
        leaked = sorted(set(names) & set(self._voc("val")))
        if leaked:
            raise UserError(
                f"{given} lists {len(leaked)} images of VOC's val for training, such as "
                f"{leaked[0]}. Remove them, or delete the file to use all masks."
            )
        return names

    @cached_property
    def _sbd(self) -> Path:
        """The folder with SBD's cls, img and lists."""
        if self.options.sbd is not None:
            given = Path(self.options.sbd).expanduser()
            places = [self.beside_suite(given, self.options.sbd)]
        else:
            devkit = self.devkit
            places = [folder / "benchmark_RELEASE" for folder in (devkit, *devkit.parents[:2])]
        for place in places:
            for folder in (place / "dataset", place):
                if (folder / "cls").is_dir():
                    return folder
        looked = " or ".join(str(place) for place in places)
        raise UserError(f"No SBD masks at {looked}. {self.layout}")


def read_mat(file: Path) -> NDArray[np.uint8]:
    """Read the class segmentation of SBD's .mat file as (H, W) uint8.

    Raises:
        FileFault: if the file cannot be read or holds something else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: Any = loadmat(file)
        return np.asarray(content["GTcls"]["Segmentation"][0, 0]).astype(np.uint8)
    except (OSError, MatReadError, ValueError, TypeError, NotImplementedError) as error:
        raise FileFault("unreadable file", f"Cannot read {file}: {error}.") from error
    except (KeyError, IndexError) as error:
        raise FileFault("unreadable file", f"{file} has no GTcls.Segmentation.") from error
