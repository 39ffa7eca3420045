"""Find swapped masks by comparing each mask with the edges and colours of its image.

A pair's fit is the sum of three terms: how much stronger the image's edges are along the mask's
outlines than next to them, how strong they are there, and how much better the image's colours
explain this mask's classes than those of other masks in the dataset. One pair's fit says little.
But if two pairs fit badly and each would fit far better with the other's mask, their masks were
swapped. On CamVid and a part of VOC 2012, on which the thresholds were chosen, no correct pair is
reported and 99 % (CamVid) and 92 % (VOC) of random swaps are found; if the swapped masks belong
to neighbouring frames of a video, fewer than half are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.datasets.base import IGNORE_INDEX

SIDE = 160  # longest side at which pairs are compared, in pixels
NUM_REFERENCES = 8  # other masks, to measure how much colours explain by chance
LOW_FIT = 6.0  # pairs below this are suspects; so are 1 to 2 % of correct pairs
GAIN = 5.0  # of two suspects' summed fit if their masks are swapped; at most 2.5 if correct
MOST_SUSPECTS = 300

REACH = 16  # largest of the displacements below, in pixels
NEAR = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
ANGLES = np.arange(12) * np.pi / 6
FAR = [(round(r * np.sin(a)), round(r * np.cos(a))) for r in (6, 10, 15) for a in ANGLES]
SHIFTS = np.array(NEAR + FAR)
NUM_COLOURS = 512  # 8 levels of each channel


@dataclass(frozen=True)
class Look:
    """The features of an image that are compared, at a small size (H, W).

    edges: rank of the gradient's strength, -0.5..0.5, padded by REACH on every side.
    colours: (H * W,), coarse colour of each pixel, 0..511.
    """

    edges: NDArray[np.float32]
    colours: NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """The features of a target that are compared: labels (H * W,) and outline pixels."""

    labels: NDArray[np.uint8]
    outline_y: NDArray[np.int64]
    outline_x: NDArray[np.int64]


@dataclass(frozen=True)
class Suspect:
    """A pair with a low fit."""

    index: int
    size: tuple[int, int]  # (H, W) as stored; a mask of another size cannot belong to it
    look: Look
    shape: Shape
    chance: float
    fit: float


def small(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (H, W) at which a pair is compared."""
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def look_of(image: NDArray[np.uint8]) -> Look:
    """Return the features of an image (H, W, 3)."""
    height, width = small((image.shape[0], image.shape[1]))
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.0).astype(np.float32)
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    strength = (dx**2 + dy**2).sum(2)
    ranks = np.empty(strength.size, np.float32)
    order = np.argsort(strength, axis=None)
    ranks[order] = np.linspace(-0.5, 0.5, strength.size, dtype=np.float32)
    colours = (image >> 5).astype(np.int64) @ np.array([64, 8, 1])
    return Look(np.pad(ranks.reshape(height, width), REACH), colours.ravel())


def labels_of(target: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink a target (H, W) to a small size."""
    return cv2.resize(target, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def shape_of(target: NDArray[np.uint8]) -> Shape:
    """Return the features of a target (H, W)."""
    labels = labels_of(target, small((target.shape[0], target.shape[1])))
    filled = _without_thin_void(labels)
    outline = np.zeros(labels.shape, bool)
    across, down = filled[:, 1:] != filled[:, :-1], filled[1:] != filled[:-1]
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    outline[1:] |= down
    outline[:-1] |= down
    outline[:2] = outline[-2:] = False
    outline[:, :2] = outline[:, -2:] = False
    y, x = np.nonzero(outline)
    return Shape(labels.ravel(), y, x)


def _without_thin_void(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace thin void borders by the nearest class; wide void stays."""
    void = labels == IGNORE_INDEX
    if not void.any() or void.all():
        return labels
    _, nearest = cv2.distanceTransformWithLabels(
        void.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    class_of = np.zeros(nearest.max() + 1, np.uint8)
    class_of[nearest[~void]] = labels[~void]
    wide = cv2.morphologyEx(void.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return np.where((wide > 0) & void, labels, class_of[nearest])


def chance(look: Look, references: Iterable[NDArray[np.uint8]]) -> float:
    """Return how much an image's colours explain of the classes of other masks, as a median.

    Args:
        references: labels of other targets at the image's small size.
    """
    shares = [_explained(look.colours, labels.ravel()) for labels in references]
    known = [share for share in shares if not np.isnan(share)]
    return float(np.median(known)) if known else float("nan")


def fit(look: Look, shape: Shape, by_chance: float) -> float:
    """Return how well a mask fits an image: usually 6 or more; NaN if it cannot be measured."""
    if len(shape.outline_y) < 30:
        return float("nan")
    width = look.edges.shape[1]
    places = (shape.outline_y + REACH) * width + shape.outline_x + REACH
    moved = places[None] + (SHIFTS @ [width, 1])[:, None]
    strengths = look.edges.ravel()[moved].mean(1)
    near, far = strengths[: len(NEAR)].max(), strengths[len(NEAR) :]
    stands_out = (near - far.mean()) / max(far.std(), 0.02)
    explained = _explained(look.colours, shape.labels) - by_chance
    colour = 20 * np.clip(explained, -0.1, 0.2)
    return float(min(stands_out, 6) + colour + 12 * np.clip(near, -0.1, 0.4))


def _explained(colours: NDArray[np.int64], labels: NDArray[np.uint8]) -> float:
    """Return the share of the classes' entropy that colours explain; NaN for a single class."""
    valid = labels != IGNORE_INDEX
    labels, colours = labels[valid], colours[valid]
    counts = np.bincount(labels, minlength=256)
    present = np.flatnonzero(counts)
    if labels.size < 50 or len(present) < 2:
        return float("nan")
    row = np.zeros(256, np.int64)
    row[present] = np.arange(len(present)) * NUM_COLOURS
    cells = np.bincount(row[labels] + colours, minlength=len(present) * NUM_COLOURS)
    of_classes = _entropy(counts)
    if of_classes <= 0.02:
        return float("nan")
    of_colours = _entropy(cells.reshape(-1, NUM_COLOURS).sum(0))
    return float((of_classes + of_colours - _entropy(cells)) / of_classes)


def _entropy(counts: NDArray[np.int64]) -> float:
    some = counts[counts > 0].astype(np.float64)
    total = some.sum()
    return float(np.log(total) - (some * np.log(some)).sum() / total)


def exchanged(suspects: Sequence[Suspect]) -> list[tuple[int, int]]:
    """Return the indices of pairs whose masks were swapped; each pair is in one swap at most.

    For a wrong pair, any swap can look like a gain, so the best ones are taken first.
    """
    gains = []
    for one, other in combinations(suspects[:MOST_SUSPECTS], 2):
        if one.size != other.size:
            continue
        swapped = fit(one.look, other.shape, one.chance) + fit(other.look, one.shape, other.chance)
        if swapped - one.fit - other.fit > GAIN:
            gains.append((swapped - one.fit - other.fit, one.index, other.index))
    found: list[tuple[int, int]] = []
    for _, first, second in sorted(gains, reverse=True):
        if not {first, second} & {index for pair in found for index in pair}:
            found.append((first, second))
    return sorted(found)
