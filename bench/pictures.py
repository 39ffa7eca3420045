"""Predictions to look at: image, truth, prediction and error map side by side."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.atomic import write_atomically
from bench.data import IGNORE_INDEX, Labels
from bench.data.transforms import resize_image

VOID_COLOUR = (224, 224, 192)
RIGHT, WRONG = (60, 60, 60), (230, 40, 40)
GAP = 4


def colour(labels: NDArray[Any], palette: Labels) -> NDArray[np.uint8]:
    """Paint class indices (H, W) in the palette; void is pale, (H, W, 3) uint8."""
    table = np.full((256, 3), VOID_COLOUR, np.uint8)
    table[: palette.num_classes] = palette.palette
    painted: NDArray[np.uint8] = table[labels]
    return painted


def strip(
    image: NDArray[np.uint8], target: NDArray[np.uint8], pred: NDArray[Any], palette: Labels
) -> NDArray[np.uint8]:
    """Lay image, truth, prediction and error map in a row.

    Args:
        image: (H, W, 3); resized to the target's size where it has another.
        target, pred: (h, w).
    """
    errors = np.full((*target.shape, 3), WRONG, np.uint8)
    errors[pred == target] = RIGHT
    errors[target == IGNORE_INDEX] = VOID_COLOUR
    size = (target.shape[0], target.shape[1])
    panels = [resize_image(image, size), colour(target, palette), colour(pred, palette), errors]
    gap = np.full((target.shape[0], GAP, 3), 255, np.uint8)
    row = [part for panel in panels for part in (panel, gap)]
    return np.concatenate(row[:-1], axis=1)


def save(picture: NDArray[np.uint8], file: Path) -> None:
    """Write a picture as PNG."""
    write_atomically(file, lambda beside: Image.fromarray(picture).save(beside, "PNG"), sync=False)
