"""Draw IDD's polygons as label files, by the rules of its authors' tools."""

import glob
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from bench.datasets.base import FileFault
from bench.datasets.idd import IDD, UNLABELED, VALUES, mask_ending
from bench.errors import UserError
from bench.lookup import pick, unknown
from bench.machine.files import write_atomically

ENDING = "_gtFine_polygons.json"
CHUNK = 8  # files that a worker process takes at a time


@dataclass(frozen=True)
class Prepared:
    """The number of label files drawn, and what went wrong."""

    made: int
    kept: int  # label files that existed and were newer than their polygons
    faults: tuple[str, ...]


class _Object(BaseModel):
    label: str
    polygon: list[tuple[FiniteFloat, FiniteFloat]]
    deleted: Any = False


class _Polygons(BaseModel):
    height: PositiveInt = Field(alias="imgHeight")
    width: PositiveInt = Field(alias="imgWidth")
    objects: list[_Object]


def rasterise(polygons: Path, label_set: str) -> NDArray[np.uint8]:
    """Draw the polygons of a frame in order, later ones over earlier ones.

    Returns:
        The labels (H, W), 255 where a void polygon or none is drawn.

    Raises:
        FileFault: if the file is malformed or a label is not in IDD's table.
        UserError: for an unknown label set.
    """
    values = pick("label set", label_set, VALUES)
    frame = _read(polygons)
    image = Image.new("L", (frame.width, frame.height), values[UNLABELED])
    draw = ImageDraw.Draw(image)
    for one in frame.objects:
        if one.deleted:
            continue
        label = one.label if one.label in values else one.label.removesuffix("group")
        if label not in values:
            raise FileFault("wrong label", f"{polygons}: {unknown('label', one.label, values)}")
        try:
            draw.polygon(one.polygon, fill=values[label])
        except (ValueError, TypeError, OverflowError, SystemError) as error:
            raise FileFault(
                "unreadable file", f"{polygons}: cannot draw a polygon of {one.label!r}: {error}."
            ) from error
    return np.asarray(image)


def _read(polygons: Path) -> _Polygons:
    try:
        return _Polygons.model_validate_json(polygons.read_bytes())
    except OSError as error:
        raise FileFault("unreadable file", f"Cannot read {polygons}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FileFault(
            "unreadable file",
            f"{polygons}: not an IDD polygon file{f', at {place}' if place else ''}: "
            f"{first['msg']}.",
        ) from error


def prepare(
    root: Path, label_set: str, num_workers: int, progress: Callable[[int, int], None]
) -> Prepared:
    """Write a label file next to every polygon file in a folder and its subfolders.

    Label files that are newer than their polygons are kept, so that an interrupted run can be
    continued. A file that cannot be drawn does not stop the others.

    Args:
        num_workers: worker processes; 0 draws in this process.
        progress: called with the number of files done and their total.

    Raises:
        UserError: if there are no polygon files, or for an unknown label set.
    """
    pick("label set", label_set, VALUES)
    # Unlike Path.rglob, this follows links, which parts of a dataset often are.
    names = glob.glob(f"**/*{ENDING}", root_dir=root, recursive=True)
    files = sorted(root / name for name in names)
    if not files:
        raise UserError(f"No *{ENDING} below {root}. {IDD.layout}")
    waiting = [file for file in files if not _is_newer(mask_of(file, label_set), file)]
    kept, faults = len(files) - len(waiting), []
    progress(kept, len(files))
    for done, fault in enumerate(_draw_all(waiting, label_set, num_workers), kept + 1):
        if fault is not None:
            faults.append(fault)
        progress(done, len(files))
    return Prepared(len(waiting) - len(faults), kept, tuple(faults))


def mask_of(polygons: Path, label_set: str) -> Path:
    """Return the label file of a polygon file."""
    return polygons.with_name(polygons.name.removesuffix(ENDING) + mask_ending(label_set))


def _is_newer(mask: Path, polygons: Path) -> bool:
    return mask.is_file() and mask.stat().st_mtime_ns >= polygons.stat().st_mtime_ns


def _draw_all(files: Sequence[Path], label_set: str, num_workers: int) -> Iterator[str | None]:
    job = partial(_draw, label_set=label_set)
    if num_workers == 0 or not files:
        yield from map(job, files)
        return
    with ProcessPoolExecutor(
        min(num_workers, len(files)),
        mp_context=get_context("spawn"),
        initializer=signal.signal,  # only this process handles Ctrl-C
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        try:
            yield from pool.map(job, files, chunksize=CHUNK)
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died while drawing polygons, perhaps out of memory. Finished "
                "files are kept: run the command again with fewer workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _draw(polygons: Path, label_set: str) -> str | None:
    """Write a label file; return what is wrong with its polygons."""
    try:
        image = Image.fromarray(rasterise(polygons, label_set))
        write_atomically(
            mask_of(polygons, label_set), lambda beside: image.save(beside, format="PNG")
        )
    except UserError as error:
        return str(error)
    return None
