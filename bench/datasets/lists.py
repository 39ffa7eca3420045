"""Read list files: one id per line, or one image and its mask; tables of classes."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.datasets.base import Colour
from bench.errors import UserError

SUFFIXES = (*(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"),)
NOT_READ = (  # suffixes of images that are not read, which would be left out unnoticed
    *(".ppm", ".pgm", ".pnm", ".jp2", ".j2k", ".jxl", ".heic", ".heif", ".avif", ".tga", ".exr"),
    *(".dng", ".psd", ".npy", ".svg"),
)
SEPARATORS = ("\t", ";", ",", " ")  # the first that fits is taken
PATH = re.compile(r"[/\\]|\.\w+$")
IMAGE_HEADS = ("image", "images", "image_path", "img", "img_path", "photo", "rgb", "input", "file")
MASK_HEADS = ("mask", "masks", "mask_path", "label", "labels", "label_path", "annotation", "gt")
COLOUR_HEADS = {"r": "r", "red": "r", "g": "g", "green": "g", "b": "b", "blue": "b"}
NAME_HEADS = ("name", "class_name", "class", "label")  # the first that occurs is taken
NUMBER_HEAD = re.compile(r"(unnamed.*|.*(id|index|idx|label|value|class|number).*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """A line of a list that is not empty; place: "file:line"."""

    place: str
    text: str


@dataclass(frozen=True)
class Listed:
    """One image and its mask, as a list names them; place: "file:line"."""

    place: str
    image: str
    mask: str


def read_text(file: Path) -> str:
    """Read a text file in UTF-8, UTF-16 or, if it is neither, the Latin-1 of Windows.

    Raises:
        FileNotFoundError: if it does not exist.
        UserError: if it cannot be read or is not text.
    """
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(file) from None
    except OSError as error:
        raise UserError(f"Cannot read the list {file}: {error.strerror}.") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise UserError(f"Cannot read the list {file}: it is not text.") from error
        text = content.decode("cp1252", errors="replace")
    if "\0" in text:
        raise UserError(f"Cannot read the list {file}: it is not text.")
    return text


def read_list(file: Path, layout: str) -> list[Line]:
    """Return the lines of a list file that are neither empty nor comments (#).

    Raises:
        UserError: if the file cannot be read; if it does not exist, with the expected layout.
    """
    try:
        lines = re.split(r"\r\n|\r|\n", read_text(file))
    except FileNotFoundError:
        raise UserError(f"No file {file}. {layout}") from None
    kept = [(number, text.strip()) for number, text in enumerate(lines, 1)]
    return [Line(f"{file}:{n}", text) for n, text in kept if text and not text.startswith("#")]


def read_names(file: Path, layout: str) -> list[str]:
    """Read a list of one name per line.

    Raises:
        UserError: if a line has several names, or a path.
    """
    names = []
    for line in read_list(file, layout):
        name = line.text.strip('"')
        if re.search(r"[\s,;/\\]", name):
            raise UserError(f"{line.place}: expected one name, without a path, not {line.text!r}.")
        names.append(name)
    return names


def read_pairs(file: Path, layout: str) -> list[Listed]:
    """Read a list of images and masks: two columns, or more of which two are certain.

    Columns are separated by tabs, semicolons, commas or spaces, and may be quoted. If there is a
    header, it can say which columns are image and mask. Otherwise these are the only two that end
    like image files, or the only two.

    Raises:
        UserError: for a line that names no image and mask, or leaves open which they are.
    """
    lines = read_list(file, layout)
    columns = _named_columns(lines[0].text) if lines else None
    if columns is not None or _is_header(lines):
        lines = lines[1:]
    return [Listed(line.place, *_pair(line, columns)) for line in lines]


def _is_header(lines: Sequence[Line]) -> bool:
    """Whether the first line has no path, while the second has one."""
    two = [*lines[:2], EMPTY, EMPTY][:2]
    first, second = (any(map(PATH.search, _tokens(line.text))) for line in two)
    return second and not first


EMPTY = Line("", "")


def _tokens(text: str) -> list[str]:
    return [token.strip("\"' ") for token in re.split(r"[\t;, ]+", text)]


def _is_image(text: str) -> bool:
    return text.lower().endswith(SUFFIXES)


def _named_columns(header: str) -> tuple[int, int] | None:
    """Return which columns a header calls image and mask; None if it does not say."""
    for separator in SEPARATORS:
        heads = [head.lower() for head in _cells(header, separator)]
        images = [i for i, head in enumerate(heads) if head in IMAGE_HEADS]
        masks = [i for i, head in enumerate(heads) if head in MASK_HEADS]
        if len(images) == len(masks) == 1:
            return images[0], masks[0]
        if len(heads) == 2 and len(images) + len(masks) == 1:  # the other is the other
            return (images[0], 1 - images[0]) if images else (1 - masks[0], masks[0])
    return None


def _pair(line: Line, columns: tuple[int, int] | None) -> tuple[str, str]:
    """Return the image and the mask of a line."""
    ways = []
    for separator in SEPARATORS:
        cells = _cells(line.text, separator)
        if columns is not None and len(cells) > max(columns):
            cells = [cells[i] for i in columns]
        if separator == " " and len(cells) != 2:
            first_two = len(cells) > 2 and [*map(_is_image, cells)].count(True) == 2
            if not (first_two and _is_image(cells[0]) and _is_image(cells[1])):
                continue  # names with spaces
        paths = [cell for cell in cells if _is_image(cell)]
        if len(paths) == 2:
            return paths[0], paths[1]
        ways.append(cells)
    two = [cells for cells in ways if len(cells) == 2 and all(cells)]
    if two:
        return two[0][0], two[0][1]
    raise UserError(
        f"{line.place}: expected an image and a mask, not {line.text!r}; if names contain spaces, "
        "separate the two with a comma or a tab, or put them in quotes; with more columns, add a "
        "header that calls two of them image and mask."
    )


def _cells(text: str, separator: str) -> list[str]:
    """Split a line into cells, which may be quoted."""
    reader = csv.reader([text], delimiter=separator, skipinitialspace=True)
    cells = [re.sub(r"^'(.*)'$", r"\1", cell.strip()) for cell in next(reader, [])]
    return [cell for cell in cells if cell] if separator == " " else cells


def find_listed(root: Path, name: str) -> Path:
    """Return the file that a list names, below the root.

    A backslash is a slash if there is no such file, and a path that begins with a slash is below
    the root unless it exists as it is.
    """
    file = root / name
    if file.is_file():
        return file
    plain = name.replace("\\", "/")
    tried = [root / plain, root / plain.lstrip("/")]
    return next((one for one in tried if one.is_file()), tried[-1])


def listed_id(name: str) -> str:
    """Return the id of an image that a list names: its path without suffix."""
    plain = name if Path(name).is_absolute() and Path(name).is_file() else name.lstrip("/\\")
    return Path(plain.replace("\\", "/")).with_suffix("").as_posix()


def _column(lines: Sequence[Line], separator: str, place: int) -> Iterator[str]:
    """Yield a column's cells, "" where a line is too short."""
    for line in lines:
        cells = _cells(line.text, separator)
        yield cells[place] if place < len(cells) else ""


def read_class_file(file: Path, first: int | None = None) -> list[tuple[str, Colour]]:
    """Read a table with the columns name, r, g, b, separated by commas, semicolons or tabs.

    Args:
        first: label of the first class, if there is a column of labels and they matter.

    Raises:
        UserError: if the file is missing, a line has no name and three numbers in 0..255, or the
            labels are not in order.
    """
    try:
        rows = list(_class_rows(read_list(file, ""), first))
    except UserError as error:
        if file.exists():
            raise
        raise UserError(f"No class file {file}.") from error
    if not rows:
        raise UserError(f"{file} has no classes.")
    return rows


def _class_rows(lines: Sequence[Line], first: int | None) -> Iterator[tuple[str, Colour]]:
    expected = "expected a CSV file with the header name,r,g,b and one class per line"
    if not lines:
        return
    separator = max("\t;,", key=lines[0].text.count)
    heads = [head.lower() for head in _cells(lines[0].text, separator)]
    colours = {COLOUR_HEADS[head]: i for i, head in enumerate(heads) if head in COLOUR_HEADS}
    names = [heads.index(head) for head in NAME_HEADS if head in heads]
    taken = {*colours.values(), *names[:1]}
    numbers = [
        i
        for i, head in enumerate(heads)
        if i not in taken
        and NUMBER_HEAD.fullmatch(head)
        and all(cell.isdecimal() for cell in _column(lines[1:], separator, i))
    ]
    num_colours = sum(head in COLOUR_HEADS for head in heads)
    if len(colours) < 3 or num_colours > 3 or not names:
        raise UserError(f"{lines[0].place}: {expected}, not {lines[0].text!r}.")
    if all(cell.isdecimal() for cell in _column(lines[1:], separator, names[0])):
        numbers += names[:1]  # classes without names, called by their labels
    for label, line in enumerate(lines[1:], first or 0):
        cells = _cells(line.text, separator)
        try:
            r, g, b = (int(cells[colours[channel]]) for channel in "rgb")
            name = cells[names[0]]
            wrong = [i for i in numbers if int(cells[i]) != label]
        except (IndexError, ValueError):
            raise UserError(f"{line.place}: {expected}, not {line.text!r}.") from None
        if not (name and all(0 <= value <= 255 for value in (r, g, b))):
            raise UserError(f"{line.place}: {expected}, colours in 0..255, not {line.text!r}.")
        if wrong and first is not None:
            raise UserError(
                f"{line.place}: {heads[wrong[0]] or 'the number'} is {cells[wrong[0]]}, but the "
                f"order of the lines gives {name} the label {label}. Sort the lines and leave none "
                "out, or give label_map."
            )
        yield name, (r, g, b)
