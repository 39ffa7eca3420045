"""A user's own folder of images and masks, described in the suite."""

import colorsys
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench.datasets.base import IGNORE_INDEX, BaseOptions, Colour, FileFault, Labels, Sample
from bench.datasets.camvid import read_class_file
from bench.datasets.image_files import FileDataset, beside, read_image, read_list
from bench.datasets.masks import NOT_MAPPED, map_labels, read_colours, read_mask
from bench.errors import UserError

Byte = Annotated[int, Field(ge=0, le=255)]
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
BINARY_ADVICE = (
    "For two classes, set binary: true (0 is the first class, 255 the second); if 255 is void, "
    "set void: 255."
)

ADVICE = {
    "wrong label": " If it is void, set void; map other labels with label_map.",
    "pixel format": " Colour masks need encoding: colour, and a colour for each class.",
}


class Class(BaseOptions):
    """One class: its name, and its colour in tables, pictures and colour masks."""

    name: str
    colour: tuple[Byte, Byte, Byte]


class Folder(FileDataset):
    """Images and masks found by pattern or in two-column lists; index or colour masks."""

    class Options(BaseOptions):
        """What a suite may set."""

        classes: tuple[Class, ...] = Field(
            min_length=1,
            max_length=IGNORE_INDEX,
            description="names in the order of their indices, {name: [r, g, b]}, or a CSV file "
            "with the columns name,r,g,b (relative to the suite)",
        )
        images: str = Field(
            "images/{split}/*",
            description="pattern relative to the root; {split} is the split's name, * matches "
            "anything",
        )
        masks: str = Field(
            "masks/{split}/{stem}.png",
            description="pattern relative to the root; {stem} is the image's name without its "
            "suffix, {folder} the folders matched by **",
        )
        list: str | None = Field(
            None, description="one file per split, such as {split}.txt, with lines 'image mask'"
        )
        splits: tuple[str, ...] = Field(("train", "val", "test"), min_length=1)
        encoding: Literal["index", "colour"] = Field("index", description="what the masks hold")
        void: Byte | Annotated[tuple[Byte, Byte, Byte], Field()] | None = Field(
            None,
            description="label of void (default 255), or its colour in colour masks (default none)",
        )
        label_map: dict[Byte, int | Literal["void"]] | None = Field(
            None, description="class index, or void, of each label in the masks"
        )
        reduce_zero_label: bool = Field(
            False, description="label 0 is void and the classes start at 1, as in ADE20K"
        )
        binary: bool = Field(False, description="masks hold 0 and 255 for the two classes")
        exif: Literal["upright", "stored"] | None = Field(
            None,
            description="for images with a rotation tag: upright rotates them to match their "
            "masks, stored keeps the pixels as they are",
        )
        title: str | None = None
        licence: str = ""
        citation: str = ""

        @field_validator("classes", mode="before")
        @classmethod
        def _read_classes(cls, value: Any, info: ValidationInfo) -> Any:
            if isinstance(value, str):
                folder = (info.context or {}).get("folder", Path())
                try:
                    rows = read_class_file(folder / Path(value).expanduser())
                except UserError as error:
                    raise ValueError(str(error)) from error
                return [{"name": name, "colour": colour} for name, colour in rows]
            if isinstance(value, dict):
                return [{"name": str(name), "colour": colour} for name, colour in value.items()]
            if isinstance(value, list | tuple) and all(isinstance(v, str | int) for v in value):
                colours = spread_colours(len(value))
                return [
                    {"name": str(name), "colour": colour}
                    for name, colour in zip(value, colours, strict=True)
                ]
            return value

        @property
        def taken(self) -> set[int]:
            """The mask labels that stand for a class."""
            if self.binary:
                return {0, 1, 255}
            if self.label_map is not None:
                return {label for label, index in self.label_map.items() if index != "void"}
            first = 1 if self.reduce_zero_label else 0
            return set(range(first, first + len(self.classes)))

        @model_validator(mode="after")
        def _agree(self) -> "Folder.Options":
            names = [one.name for one in self.classes]
            if len(set(names)) < len(names):
                raise ValueError(f"classes: a name occurs twice in {names}.")
            if self.encoding == "colour":
                given = {"label_map": self.label_map, "binary": self.binary}
                given["reduce_zero_label"] = self.reduce_zero_label
                for name, value in given.items():
                    if value:
                        raise ValueError(f"{name} is for index masks, not for encoding: colour.")
                if len({one.colour for one in self.classes}) < len(self.classes):
                    raise ValueError("classes: two classes have the same colour.")
                if len(self.classes) > NOT_MAPPED:
                    raise ValueError(f"classes: colour masks have at most {NOT_MAPPED} classes.")
                if isinstance(self.void, int):
                    raise ValueError("void: give a colour [r, g, b] with encoding: colour.")
            elif isinstance(self.void, tuple):
                raise ValueError("void: a colour is for colour masks; set encoding: colour too.")
            if self.binary and len(self.classes) != 2:
                raise ValueError(f"binary needs two classes, not {len(self.classes)}.")
            if sum(map(bool, (self.label_map, self.reduce_zero_label, self.binary))) > 1:
                raise ValueError("Give only one of label_map, reduce_zero_label and binary.")
            if isinstance(self.void, int) and self.void in self.taken:
                raise ValueError(f"void: label {self.void} already stands for a class.")
            for label, index in (self.label_map or {}).items():
                if index != "void" and not 0 <= index < len(self.classes):
                    raise ValueError(
                        f"label_map: {label} is mapped to {index}, which is not a class "
                        f"(0..{len(self.classes) - 1})."
                    )
            for field, known in (("images", {"split"}), ("masks", {"split", "stem", "folder"})):
                wanted = {name for _, name, _, _ in string.Formatter().parse(getattr(self, field))}
                if wanted - {None, *known}:
                    raise ValueError(
                        f"{field}: it may contain only {{{'}, {'.join(sorted(known))}}}."
                    )
            return self

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
        root = self.require_root()
        pattern = self.options.images.replace("{split}", split)
        fixed = Path(pattern.partition("*")[0] + "x").parent
        samples = []
        for image in sorted(file for file in root.glob(pattern) if file.suffix.lower() in SUFFIXES):
            inside = image.relative_to(root).parent.relative_to(fixed)
            mask = self.options.masks.format(split=split, stem=image.stem, folder=inside.as_posix())
            name = (inside / image.stem).as_posix()
            samples.append(Sample(name, image, root / mask))
        if not samples:
            raise UserError(f"No image matches {root / pattern}. {self.layout}")
        return samples

    def _by_list(self, split: str) -> Sequence[Sample]:
        root = self.require_root()
        file = root / self.options.list.replace("{split}", split)
        samples = []
        for number, line in enumerate(read_list(file, self.layout), 1):
            separator = next((mark for mark in ("\t", ",") if mark in line), None)
            parts = [part.strip() for part in line.split(separator)]
            if number == 1 and not any(part.lower().endswith(SUFFIXES) for part in parts):
                continue  # a header
            if len(parts) != 2:
                raise UserError(
                    f"{file}:{number}: expected an image and a mask, not {line!r}; if names "
                    "contain spaces, separate the two with a comma or a tab."
                )
            name = Path(parts[0]).with_suffix("").as_posix()
            samples.append(Sample(name, root / parts[0], root / parts[1]))
        return samples

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
            return map_labels(read_mask(sample.mask), self.label_map, sample.mask, palette, advice)
        except FileFault as fault:
            raise FileFault(fault.kind, f"{fault}{ADVICE.get(fault.kind, '')}") from fault

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
        """Return masks without an image and, with lists, images that are in no list."""
        samples = self.listed_anywhere()
        masks = beside([s.mask for s in samples if s.mask is not None])
        images = beside([s.image for s in samples if s.image is not None])
        known = {file for sample in samples for file in sample.files}
        return sorted({*masks, *images} - known)


def spread_colours(num_colours: int) -> list[Colour]:
    """Return black, then colours that differ in hue and, if there are many, in brightness."""
    colours: list[Colour] = [(0, 0, 0)]
    golden = 0.618034  # of the hue circle: keeps neighbours in the list far apart
    for i in range(num_colours - 1):
        value = (1.0, 0.72, 0.5)[i // 12 % 3]
        r, g, b = colorsys.hsv_to_rgb(i * golden % 1, 0.85, value)
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    return colours[:num_colours]
