"""Pictures: predictions beside their truth, and contact sheets of images with their masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.datasets.base import IGNORE_INDEX, Labels
from bench.loading.resize import resize_image
from bench.machine.files import write_atomically
from bench.machine.fonts import Fonts, font_of, fonts_for

VOID_COLOUR = (224, 224, 192)
RIGHT, WRONG = (60, 60, 60), (230, 40, 40)
STRIP_GAP = 4  # pixels between the panels of a strip
TILE = 300  # longest side of an image in a sheet, in pixels
GAP = 10
TEXT, LETTER = 15, 11  # height of a line, and of its letters
ELLIPSIS = "…"
SWATCH = 14
STRENGTH, FAINT = 0.55, 0.2  # opacity of the mask; of black, often background
INK, PAPER = (20, 20, 20), (255, 255, 255)


def colour(labels: NDArray[Any], palette: Labels) -> NDArray[np.uint8]:
    """Paint class indices (H, W) in the palette, as (H, W, 3) uint8; void is pale."""
    table = np.full((256, 3), VOID_COLOUR, np.uint8)
    table[: palette.num_classes] = palette.palette
    painted: NDArray[np.uint8] = table[labels]
    return painted


def strip(
    image: NDArray[np.uint8], target: NDArray[np.uint8], pred: NDArray[Any], palette: Labels
) -> NDArray[np.uint8]:
    """Put image, truth, prediction and error map side by side.

    Args:
        image: (H, W, 3) uint8; resized to the target's size if it differs.
        target, pred: class indices (h, w); 255 is void in `target`.

    Returns:
        (h, 4 w + 12, 3) uint8.
    """
    errors = np.full((*target.shape, 3), WRONG, np.uint8)
    errors[pred == target] = RIGHT
    errors[target == IGNORE_INDEX] = VOID_COLOUR
    size = (target.shape[0], target.shape[1])
    panels = [resize_image(image, size), colour(target, palette), colour(pred, palette), errors]
    gap = np.full((target.shape[0], STRIP_GAP, 3), 255, np.uint8)
    row = [part for panel in panels for part in (panel, gap)]
    return np.concatenate(row[:-1], axis=1)


def save(picture: NDArray[np.uint8], file: Path) -> None:
    """Write a picture as PNG."""
    write_atomically(file, lambda beside: Image.fromarray(picture).save(beside, "PNG"), sync=False)


@dataclass(frozen=True)
class Tile:
    """One image (H, W, 3) and its target (H, W), with a line of text."""

    title: str
    image: NDArray[np.uint8]
    target: NDArray[np.uint8]


def overlay(tile: Tile, labels: Labels) -> NDArray[np.uint8]:
    """Draw a mask over its image: classes tinted, outlines drawn, void hatched; (H, W, 3) uint8."""
    painted = colour(tile.target, labels).astype(np.float32)
    strength = np.where(painted.any(2, keepdims=True), STRENGTH, FAINT)
    mixed = (1 - strength) * tile.image + strength * painted
    void = tile.target == IGNORE_INDEX
    y, x = np.indices(tile.target.shape)
    hatch = void & ((x + y) // 4 % 2 == 0)
    mixed[void] = 0.8 * tile.image[void] + 0.2 * np.array(VOID_COLOUR)
    mixed[hatch] = VOID_COLOUR
    kernel = np.ones((3, 3), np.uint8)
    outline = cv2.dilate(tile.target, kernel) != cv2.erode(tile.target, kernel)
    mixed[outline & ~void] = 0.5 * painted[outline & ~void]
    return mixed.clip(0, 255).astype(np.uint8)


def contact_sheet(
    heading: str, rows: Sequence[Sequence[Tile]], labels: Labels
) -> tuple[NDArray[np.uint8], str]:
    """Draw rows of tiles under a heading, and the classes that occur in them.

    Returns:
        The picture (H, W, 3) uint8, and a note on letters that no font has, or "".
    """
    legend = _legend(rows, labels)
    titles = (tile.title for row in rows for tile in row)
    fonts = fonts_for([heading, ELLIPSIS, *titles, *(name for name, _ in legend)])
    small = [[_shrunk(overlay(tile, labels)) for tile in row] for row in rows]
    width = max(sum(image.shape[1] + GAP for image in row) for row in small) + GAP
    width = max(width, 420)
    heights = [max(image.shape[0] for image in row) + TEXT + GAP for row in small]
    columns = max(1, (width - GAP) // 200)
    legend_height = -(-len(legend) // columns) * (TEXT + 4) + GAP
    height = TEXT + 2 * GAP + sum(heights) + legend_height
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    pen = Pen(draw, fonts)
    pen.write((GAP, GAP), heading, width - 2 * GAP)
    top = TEXT + 2 * GAP
    for row, images, row_height in zip(rows, small, heights, strict=True):
        left = GAP
        for tile, image in zip(row, images, strict=True):
            pen.write((left, top), tile.title, image.shape[1])
            sheet.paste(Image.fromarray(image), (left, top + TEXT))
            left += image.shape[1] + GAP
        top += row_height
    for i, (name, tone) in enumerate(legend):
        left, y = GAP + i % columns * 200, top + i // columns * (TEXT + 4)
        draw.rectangle((left, y, left + SWATCH, y + SWATCH), tone, INK)
        pen.write((left + SWATCH + 6, y), name, 170)
    return np.asarray(sheet), fonts.note


@dataclass(frozen=True)
class Pen:
    """Writes text in any script on a picture."""

    draw: ImageDraw.ImageDraw
    fonts: Fonts

    def write(self, place: tuple[int, int], text: str, width: int) -> None:
        """Write a line, without its start if it is wider than `width` pixels."""
        shown = rest = self.fonts.drawable(text)
        while len(rest) > 1 and self._length(shown) > width:
            rest = rest[1:]
            shown = f"{ELLIPSIS}{rest}"
        left, top = float(place[0]), place[1] + LETTER
        for part, font in self._parts(shown):
            self.draw.text((left, top), part, INK, font, anchor="ls")  # on one base line
            left += font.getlength(part)

    def _length(self, text: str) -> float:
        return sum(font.getlength(part) for part, font in self._parts(text))

    def _parts(self, text: str) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
        """Yield the parts of a text that one font draws, with that font."""
        for file, letters in groupby(text, key=lambda letter: font_of(letter, self.fonts)):
            yield "".join(letters), ImageFont.truetype(str(file), LETTER)


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = TILE / max(image.shape[:2])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(image, (max(1, size[0]), max(1, size[1])), interpolation=method).astype(
        np.uint8
    )


def _legend(
    rows: Sequence[Sequence[Tile]], labels: Labels
) -> list[tuple[str, tuple[int, int, int]]]:
    """List the classes that occur with their share of the pixels, and void."""
    counts = np.zeros(256, np.int64)
    for tile in (tile for row in rows for tile in row):
        counts += np.bincount(tile.target.ravel(), minlength=256)
    total = max(1, int(counts.sum()))
    found = [
        (f"{name}  {100 * counts[i] / total:.1f} %", labels.palette[i])
        for i, name in enumerate(labels.names)
        if counts[i]
    ]
    if counts[IGNORE_INDEX]:
        found.append((f"void  {100 * counts[IGNORE_INDEX] / total:.1f} %", VOID_COLOUR))
    return found
