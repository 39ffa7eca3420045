"""What a suite says about a user's own folder of images and masks."""

import colorsys
import re
import string
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench.datasets.base import IGNORE_INDEX, BaseOptions, Colour
from bench.datasets.lists import read_class_file
from bench.datasets.masks import NOT_MAPPED
from bench.datasets.patterns import Pattern
from bench.errors import Fault, Faults, UserError

Byte = Annotated[int, Field(ge=0, le=255)]


class Class(BaseOptions):
    """One class: its name, and its colour in tables, pictures and colour masks."""

    name: str
    colour: tuple[Byte, Byte, Byte]


class FolderOptions(BaseOptions):
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
        "anything, ** any number of folders, {stem} the name that the mask shares",
    )
    masks: str = Field(
        "masks/{split}/{stem}.png",
        description="pattern relative to the root; {stem} is what it matched in images, or the "
        "image's name without its suffix; {folder} is the folders below its fixed start",
    )
    list: str | None = Field(
        None,
        description="one file per split, such as {split}.txt, with lines 'image mask', in the "
        "root or beside the suite",
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

    @model_validator(mode="before")
    @classmethod
    def _read_class_file(cls, value: Any, info: ValidationInfo) -> Any:
        if not (isinstance(value, dict) and isinstance(value.get("classes"), str)):
            return value
        folder = (info.context or {}).get("folder", Path())
        by_label = value.get("encoding") != "colour" and not value.get("label_map")
        first = int(bool(value.get("reduce_zero_label"))) if by_label else None
        try:
            rows = read_class_file(folder / Path(value["classes"]).expanduser(), first)
        except UserError as error:
            raise Faults([Fault(("classes",), str(error))]) from error
        return value | {"classes": [{"name": name, "colour": colour} for name, colour in rows]}

    @field_validator("classes", mode="before")
    @classmethod
    def _read_classes(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return [{"name": str(name), "colour": colour} for name, colour in value.items()]
        if isinstance(value, list | tuple) and all(isinstance(v, str | int) for v in value):
            colours = spread_colours(len(value))
            return [
                {"name": str(name), "colour": colour}
                for name, colour in zip(value, colours, strict=True)
            ]
        return value

    @field_validator("label_map", mode="before")
    @classmethod
    def _map_to_classes(cls, value: Any) -> Any:
        for label, to in value.items() if isinstance(value, dict) else ():
            if isinstance(to, str) and to != "void":
                text = f"Give the number of a class (the first is 0) or void, not {to!r}."
                raise Faults([Fault((label,), text)])
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
    def _names_differ(self) -> "FolderOptions":
        names = [one.name for one in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"classes: a name occurs twice in {names}.")
        if not all(name.strip() for name in names):
            raise ValueError(f"classes: a name is empty in {names}.")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits: a split occurs twice in {list(self.splits)}.")
        return self

    @model_validator(mode="after")
    def _colours_agree(self) -> "FolderOptions":
        if self.encoding != "colour":
            if isinstance(self.void, tuple):
                raise ValueError("void: a colour is for colour masks; set encoding: colour too.")
            return self
        given = {"label_map": self.label_map, "binary": self.binary}
        given["reduce_zero_label"] = self.reduce_zero_label
        for name, value in given.items():
            if value:
                raise ValueError(f"{name} is for index masks, not for encoding: colour.")
        if len({one.colour for one in self.classes}) < len(self.classes):
            raise ValueError("classes: two classes have the same colour.")
        if self.void in [one.colour for one in self.classes]:
            raise ValueError(f"void: the colour {self.void} already stands for a class.")
        if len(self.classes) > NOT_MAPPED:
            raise ValueError(f"classes: colour masks have at most {NOT_MAPPED} classes.")
        if isinstance(self.void, int):
            raise ValueError("void: give a colour [r, g, b] with encoding: colour.")
        return self

    @model_validator(mode="after")
    def _labels_agree(self) -> "FolderOptions":
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
        return self

    @model_validator(mode="after")
    def _files_agree(self) -> "FolderOptions":
        usual = {name: type(self).model_fields[name].default for name in ("images", "masks")}
        if self.list is not None and usual != {"images": self.images, "masks": self.masks}:
            raise ValueError("list: it names the images and masks; leave images and masks out.")
        by_split = "{split}" in (self.list or self.images + self.masks)
        if len(self.splits) > 1 and not by_split:
            field = "images" if self.list is None else "list"
            raise ValueError(
                f"{field}: without {{split}}, all splits are the same files; write {{split}} "
                "where the name of the split stands, or give one split."
            )
        _check_pattern("images", self.images, {"split", "stem"})
        _check_pattern("masks", self.masks, {"split", "stem", "folder"})
        if not re.search(r"\{(stem|folder)\}", self.masks):
            raise ValueError(
                "masks: without {stem}, all images have the same mask; write {stem} where the "
                "name of the image stands."
            )
        return self


def _check_pattern(field: str, text: str, known: set[str]) -> None:
    """Check that a pattern is one, and names nothing else in braces than what is known.

    Raises:
        ValueError: saying what it may contain.
    """
    if "{{" in text or "}}" in text:
        raise ValueError(f"{field}: write single braces, not {text!r}.")
    allowed = f"it may contain only {{{'}, {'.join(sorted(known))}}}"
    try:
        parsed = list(string.Formatter().parse(text))
        re.compile(Pattern(Path(), re.sub(r"\{\w*\}", "x", text)).regex)
    except re.error as error:
        raise ValueError(f"{field}: {text!r} is no pattern: {error}.") from error
    except ValueError as error:  # a brace without the other
        raise ValueError(f"{field}: {error}; {allowed}.") from error
    more = any(spec or conversion for _, _, spec, conversion in parsed)
    if more or {name for _, name, _, _ in parsed} - {None, *known}:
        raise ValueError(f"{field}: {allowed}.")


def spread_colours(num_colours: int) -> list[Colour]:
    """Return black, then colours that differ in hue and, if there are many, in brightness."""
    colours: list[Colour] = [(0, 0, 0)]
    golden = 0.618034  # of the hue circle: keeps neighbours in the list far apart
    for i in range(num_colours - 1):
        value = (1.0, 0.72, 0.5)[i // 12 % 3]
        r, g, b = colorsys.hsv_to_rgb(i * golden % 1, 0.85, value)
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    return colours[:num_colours]
