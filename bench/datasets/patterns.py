"""Find files by pattern: links are followed, hidden files never count, nothing is lost silently.

A pattern is a path with *, ?, [ab] and ** (any number of folders); {stem} names a part of it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from bench.errors import UserError

WILD = re.compile(r"[*?[]|\{stem\}")
LONGEST_PATH = 1024  # bytes
ONE_PATH = re.compile(r"[^\n]*[^\n./][^\n]*/[^\n]*|\.\.?/[^\n]*[^\n./][^\n]*")
FILE_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,4}$")
STEM = r"(?P<stem>[^/]+)"


@dataclass(frozen=True)
class Found:
    """A file that matches a pattern.

    folder: the folders between the fixed start of the pattern and the file; "." if none.
    stem: what {stem} matched; without {stem} in the pattern, the name without its suffix.
    """

    file: Path
    folder: str
    stem: str


@dataclass(frozen=True)
class Pattern:
    """A pattern of paths below a folder."""

    root: Path
    text: str

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path; a final ** stands for the files below it."""
        parts = PurePosixPath(self.text).parts
        return (*parts, "*") if parts[-1:] == ("**",) else parts

    @cached_property
    def num_fixed(self) -> int:
        """How many folders at the start have no wildcard."""
        wild = (number for number, part in enumerate(self.parts) if WILD.search(part))
        return min(next(wild, len(self.parts)), len(self.parts) - 1)

    @property
    def start(self) -> Path:
        """The folder that all matching files are in."""
        return self.root.joinpath(*self.parts[: self.num_fixed])

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern of paths relative to `start`."""
        text = ""
        for part in self.parts[self.num_fixed :]:
            text += r"(?:[^/]+/)*" if part == "**" else f"{_translated(part)}/"
        first, *more = text.removesuffix("/").split(STEM)
        return re.compile(first + (STEM + "(?P=stem)".join(more) if more else ""))

    def files(self) -> list[Found]:
        """Return the files that match, sorted by path.

        Raises:
            UserError: if a folder cannot be read, or a link leads nowhere or in a circle.
        """
        found = []
        for path in self.candidates():
            inside = path.relative_to(self.start)
            match = self.regex.fullmatch(inside.as_posix())
            if match:
                _check_name(path)
                stem = match.groupdict().get("stem") or path.stem
                found.append(Found(path, inside.parent.as_posix(), stem))
        return found

    def candidates(self) -> list[Path]:
        """Return all files in the folders where the pattern looks, sorted by path."""
        wild = self.parts[self.num_fixed :]
        depth = None if "**" in wild else len(wild) - 1
        return sorted(_walk(self.start, depth, ()))


def _check_name(file: Path) -> None:
    """Refuse a name that cannot be written to results."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise UserError(f"The name of {str(file)!a} is not UTF-8; rename the file.") from None


def _translated(part: str) -> str:
    """Turn one part of a pattern into a regular expression."""
    text = ""
    for piece in re.split(r"(\*|\?|\[!?[^]]+\]|\{stem\})", part):
        if piece == "*":
            text += "[^/]*"
        elif piece == "?":
            text += "[^/]"
        elif piece == "{stem}":
            text += STEM
        elif piece.startswith("[") and len(piece) > 1:
            text += f"(?![/]){_one_of(piece[1:-1])}"
        else:
            text += re.escape(piece)
    return text


def _one_of(letters: str) -> str:
    """Turn the inside of [ab], [a-z] or [!a] into a class of a regular expression."""
    wanted = letters.removeprefix("!")
    escaped = "".join(c if c == "-" else re.escape(c) for c in wanted)
    return f"[{'^' if letters != wanted else ''}{escaped}]"


def _walk(folder: Path, depth: int | None, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the files below a folder, down to a depth; hidden files and folders are left out."""
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror}.") from error
    here = status.st_dev, status.st_ino
    if here in above:
        raise UserError(f"{folder} is a link to a folder that it is in; remove the link.")
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:  # such as a link to itself
            raise UserError(f"Cannot read {entry.path}: {error.strerror}.") from error
        if is_folder:
            if depth is None or depth > 0:
                below = None if depth is None else depth - 1
                yield from _walk(Path(entry.path), below, (*above, here))
        elif is_file:
            _check_not_a_link(Path(entry.path))
            yield Path(entry.path)
        elif entry.is_symlink():
            if not FILE_SUFFIX.search(entry.name):  # perhaps of a folder with images
                where = os.readlink(entry.path)
                raise UserError(f"{entry.path} is a link to {where}, which is gone.")
            yield Path(entry.path)  # a missing file, if it matches


def _check_not_a_link(file: Path) -> None:
    """Refuse a text file that holds the path of a folder, as Git writes where it makes no links."""
    if file.suffix or file.stat().st_size > LONGEST_PATH:
        return
    target = file.read_bytes().decode(errors="replace").strip()
    is_link: object = False
    with suppress(OSError, ValueError):  # it is no path
        is_link = ONE_PATH.fullmatch(target) and (file.parent / target).is_dir()
    if is_link:
        raise UserError(
            f"{file} is a text file with the path of a folder, {target}: a link that was not "
            "copied as a link. Make it one, or copy the folder."
        )
