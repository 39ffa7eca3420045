"""A user's own folder of images and masks, described in the suite."""

import glob
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets.base import IGNORE_INDEX, Colour, FileFault, Labels, Sample
from bench.datasets.folder_options import FolderOptions, spread_colours
from bench.datasets.image_files import FileDataset, is_image, read_image
from bench.datasets.lists import NOT_READ, find_listed, listed_id, read_pairs
from bench.datasets.masks import colours_of, map_labels, read_colours, read_mask
from bench.datasets.patterns import STEM, Found, Pattern
from bench.errors import UserError
from bench.text import listed

BINARY_ADVICE = (
    "For two classes, set binary: true (0 is the first class, 255 the second); if 255 is void, "
    "set void: 255."
)

ADVICE = {
    "wrong label": " If it is void, set void; map other labels with label_map.",
    "colour mask": " Colour masks need encoding: colour, and a colour for each class.",
    "wrong palette": " If the mask's colours are right, set encoding: colour; if its labels are, "
    "give the classes in the order of the labels, or without colours.",
}


class Folder(FileDataset):
    """Images and masks found by pattern or in two-column lists; index or colour masks."""

    Options = FolderOptions
    unhashed_options = ("title", "licence", "citation")
    title = "Own folder"
    splits = ("train", "val", "test")
    licence = ""
    citation = ""
    layout = (
        "The options images and masks are patterns relative to the root, by default "
        "images/{split}/* and masks/{split}/{stem}.png; or set list: '{split}.txt' to read lists "
        "of images and masks."
    )

    def configure(self) -> None:
        """Set the splits, title, licence and citation."""
        options = self.options
        self.splits = options.splits
        self.title = options.title or (self.title if self.root is None else self.root.name)
        self.licence, self.citation = options.licence, options.citation

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return the classes given in the suite."""
        return Labels(
            tuple(one.name for one in options.classes), tuple(one.colour for one in options.classes)
        )

    def listed(self, split: str) -> Sequence[Sample]:
        """Read the split's list, or find its images by pattern and derive the paths of masks."""
        if self.options.list is not None:
            return self._by_list(split)
        pattern = self._pattern(split)
        found = [one for one in pattern.files() if is_image(one.file)]
        if not found:
            others = {one.file.suffix for one in pattern.files()}
            kinds = f" Files of other kinds match ({listed(sorted(others))})." if others else ""
            raise UserError(f"No image matches {pattern.root / pattern.text}.{kinds} {self.layout}")
        return [self._sample(split, one) for one in found]

    def _pattern(self, split: str) -> Pattern:
        if split not in self._patterns:
            text = self.options.images.replace("{split}", glob.escape(split))
            self._patterns[split] = Pattern(self.require_root(), text)
        return self._patterns[split]

    @cached_property
    def _patterns(self) -> dict[str, Pattern]:
        return {}

    def _sample(self, split: str, found: Found) -> Sample:
        names = {"split": split, "stem": found.stem, "folder": found.folder}
        mask = self.require_root() / self.options.masks.format(**names)
        return Sample((Path(found.folder) / found.stem).as_posix(), found.file, mask)

    def _by_list(self, split: str) -> Sequence[Sample]:
        root, name = self.require_root(), self.options.list.replace("{split}", split)
        return [
            Sample(listed_id(one.image), find_listed(root, one.image), find_listed(root, one.mask))
            for one in read_pairs(self.beside_suite(root / name, name), self.layout)
        ]

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Decode the image; the option `exif` says what to do with a rotation tag."""
        assert sample.image is not None
        return read_image(sample.image, self.options.exif)

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Read the mask by index or by colour."""
        assert sample.mask is not None
        options = self.options
        if options.encoding == "colour":
            colours: dict[Colour, int] = {c.colour: i for i, c in enumerate(options.classes)}
            if options.void is not None:
                colours[options.void] = IGNORE_INDEX
            try:
                return read_colours(sample.mask, colours)
            except FileFault as fault:
                advice = (
                    " If it is void, set void: [r, g, b]." if fault.kind == "wrong label" else ""
                )
                raise FileFault(fault.kind, f"{fault}{advice}") from fault
        is_clear = options.binary or options.void == IGNORE_INDEX or options.label_map is not None
        advice = "accept" if is_clear else BINARY_ADVICE
        palette = self.labels(options).palette
        try:
            mask = read_mask(sample.mask, self._colours, exact=False)
            if options.binary and {1, 255} <= set(np.unique(mask)):
                text = f"{sample.mask} has the values 1 and 255; binary: true takes one of them."
                raise FileFault("0/255 mask", text)
            return map_labels(mask, self.label_map, sample.mask, palette, advice)
        except FileFault as fault:
            raise FileFault(fault.kind, f"{fault}{ADVICE.get(fault.kind, '')}") from fault

    @cached_property
    def _colours(self) -> dict[int, Colour]:
        """The colour of each label; empty if the suite gives no colours."""
        palette = self.labels(self.options).palette
        if list(palette) == spread_colours(len(palette)):
            return {}
        return colours_of(self.label_map, palette)

    @property
    def label_map(self) -> dict[int, int]:
        """Class index, or 255, of each label that masks may have."""
        options, num_classes = self.options, len(self.options.classes)
        if options.binary:
            to = {0: 0, 1: 1, 255: 1}
        elif options.label_map is not None:
            to = {k: IGNORE_INDEX if v == "void" else v for k, v in options.label_map.items()}
        elif options.reduce_zero_label:
            to = {0: IGNORE_INDEX} | {label + 1: label for label in range(num_classes)}
        else:
            to = {label: label for label in range(num_classes)}
        if isinstance(options.void, int):
            to[options.void] = IGNORE_INDEX
        elif not options.binary:
            to.setdefault(IGNORE_INDEX, IGNORE_INDEX)
        return to

    def unlisted(self) -> Sequence[Path]:
        """Return files that the patterns miss: masks without an image, images named .JPG."""
        return self._missed

    @cached_property
    def _missed(self) -> list[Path]:
        return [file for file in self._others if self._is_missed(file)]

    def lies_beside(self) -> str:
        """Say which kinds of files lie beside the samples and are left out on purpose."""
        missed = set(self.unlisted())
        kinds = Counter(self._kind(file) for file in self._others if file not in missed)
        return listed(f"{num:,} {kind}" for kind, num in sorted(kinds.items()))

    @cached_property
    def _known(self) -> tuple[set[Path], set[str]]:
        """The files of all samples, and the names that image and mask share."""
        samples = self.listed_anywhere()
        files = {file for sample in samples for file in sample.files}
        return files, {Path(sample.id).name for sample in samples}

    @cached_property
    def _others(self) -> list[Path]:
        """The images and masks that lie where samples do and belong to none."""
        known, _ = self._known
        folders = {file.parent for file in known if file.parent.is_dir()}
        there = {file for folder in folders for file in folder.iterdir() if file.is_file()}
        starts = {pattern.start: pattern for pattern in self._looked}
        for pattern in starts.values():
            with suppress(UserError):  # a split that cannot be listed
                there |= set(pattern.candidates())
        return sorted(file for file in there - known if is_image(file, also=NOT_READ))

    @cached_property
    def _looked(self) -> list[Pattern]:
        """The patterns of images; none with lists, which leave out what they like."""
        return [] if self.options.list else [self._pattern(split) for split in self.splits]

    @cached_property
    def _looked_for(self) -> list[tuple[Path, re.Pattern[str]]]:
        """What images of each split match but for capital letters, below a folder."""
        return [
            (pattern.start, re.compile(pattern.regex.pattern, re.IGNORECASE))
            for pattern in self._looked
        ]

    @cached_property
    def _masks_of(self) -> list[re.Pattern[str]]:
        """What masks of each split match, below the root."""
        if self.options.list is not None:
            return []
        texts = {self.options.masks.replace("{split}", split) for split in self.splits}
        return [re.compile(_mask_regex(text)) for text in sorted(texts)]

    def _is_missed(self, file: Path) -> bool:
        """Whether a file is a mask without an image, or an image but for capitals or its kind."""
        for start, images in self._looked_for:
            if file.is_relative_to(start) and images.fullmatch(file.relative_to(start).as_posix()):
                return True
        if not file.is_relative_to(self.require_root()) or not is_image(file):
            return False
        inside = file.relative_to(self.require_root()).as_posix()
        found = (masks.fullmatch(inside) for masks in self._masks_of)
        return any(
            match and self._shared_name(match.groupdict().get("stem", "")) is None
            for match in found
        )

    def _kind(self, file: Path) -> str:
        """Describe a file by what follows the name of a sample: *_inst_label.png, *.png."""
        shared = self._shared_name(file.name)
        return f"*{file.name.removeprefix(shared)}" if shared else f"*{file.suffix}"

    def _shared_name(self, name: str) -> str | None:
        """Return the name of a sample that this one begins with: 7_inst begins with 7."""
        ends = [match.start() for match in re.finditer(r"[^A-Za-z0-9]", name)]
        return next((name[:end] for end in reversed(ends) if name[:end] in self._known[1]), None)


def _mask_regex(pattern: str) -> str:
    """Turn a pattern of masks into a regular expression of paths relative to the root."""
    text = re.escape(pattern).replace(re.escape("{folder}/"), "(?:.*/)?")
    text = text.replace(re.escape("{folder}"), ".*")
    first, *more = text.split(re.escape("{stem}"))
    return first + (STEM + "(?P=stem)".join(more) if more else "")
