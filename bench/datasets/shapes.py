"""Shapes: generated images for trying things out; no files, deterministic by seed and index."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from bench.datasets.base import IGNORE_INDEX, BaseOptions, Dataset, Labels, Pair, Sample

LABELS = Labels(
    names=("background", "disc", "square", "triangle", "ring", "cross"),
    palette=((0, 0, 0), (230, 97, 1), (94, 60, 153), (26, 150, 65), (44, 123, 182), (215, 25, 28)),
)
Plane = NDArray[np.float32]
GREY = np.full(3, 128, np.float32)
SPLIT_STREAMS = {"train": 0, "val": 1, "test": 2}


class Shapes(Dataset):
    """Textured shapes of five classes at many scales, overlapping, with void borders as in VOC."""

    class Options(BaseOptions):
        """What a suite may set."""

        size: tuple[PositiveInt, PositiveInt] = Field((96, 96), description="[H, W] in pixels")
        num_train: PositiveInt = 160
        num_val: PositiveInt = 40
        num_test: PositiveInt = 40
        seed: int = Field(0, ge=0, description="another seed gives another dataset")

    title = "Shapes (generated)"
    splits = ("train", "val", "test")
    licence = "Apache-2.0, as this project"
    citation = ""
    needs_root = False

    @classmethod
    def labels(cls, options: Any) -> Labels:
        """Return background and the five kinds of shape."""
        return LABELS

    def listed(self, split: str) -> Sequence[Sample]:
        """Name the images by split and index."""
        num = getattr(self.options, f"num_{split}")
        return [Sample(f"{split}/{index:05d}") for index in range(num)]

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Draw one pair and return its image."""
        return self.read(sample)[0]

    def read_target(self, sample: Sample) -> NDArray[np.uint8]:
        """Draw one pair and return its target."""
        return self.read(sample)[1]

    def read(self, sample: Sample) -> Pair:
        """Draw one pair; the id is its seed."""
        split, index = sample.id.split("/")
        stream = (self.version, self.options.seed, SPLIT_STREAMS[split], int(index))
        return draw(np.random.default_rng(stream), self.options.size)


def draw(rng: np.random.Generator, size: tuple[int, int]) -> Pair:
    """Draw an image and its target of `size` (H, W)."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = _texture(rng, y, x, _colour(rng, GREY, 0.5))
    target = np.zeros(size, np.uint8)
    for _ in range(rng.integers(3, 8)):
        kind = int(rng.integers(1, LABELS.num_classes))
        radius = min(size) * float(np.exp(rng.uniform(np.log(0.06), np.log(0.32))))
        centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
        angle = rng.uniform(0, 2 * np.pi)
        dy, dx = y - centre_y, x - centre_x
        v = (np.cos(angle) * dy - np.sin(angle) * dx) / radius
        u = (np.sin(angle) * dy + np.cos(angle) * dx) / radius
        distance = _distance(kind, u, v) * radius
        inside = distance <= 0
        tone = np.array(LABELS.palette[kind], np.float32)
        image[inside] = _texture(rng, y, x, _colour(rng, tone, 0.4))[inside]
        target[inside] = kind
        target[np.abs(distance) <= 1.0] = IGNORE_INDEX
    image += rng.normal(0, 6, image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), target


def _distance(kind: int, u: Plane, v: Plane) -> Plane:
    """Return the distance to the outline of a shape of radius 1, negative inside."""
    r: Plane = np.hypot(u, v)
    match LABELS.names[kind]:
        case "disc":
            return r - 1
        case "square":
            return np.asarray(np.maximum(abs(u), abs(v)) - 0.85)
        case "triangle":
            sides = np.maximum(0.866 * u + 0.5 * v, -0.866 * u + 0.5 * v)
            return np.asarray(np.maximum(-v, sides) - 0.5)
        case "ring":
            return np.asarray(abs(r - 0.75) - 0.25)
        case _:
            arm_u = np.maximum(abs(u) - 1.0, abs(v) - 0.3)
            return np.asarray(np.minimum(arm_u, np.maximum(abs(v) - 1.0, abs(u) - 0.3)))


def _colour(rng: np.random.Generator, tone: Plane, freedom: float) -> Plane:
    """Return a random colour mixed with a tone, so that colour only hints at the class."""
    return np.asarray((1 - freedom) * tone + freedom * rng.uniform(0, 255, 3), np.float32)


def _texture(rng: np.random.Generator, y: Plane, x: Plane, colour: Plane) -> Plane:
    """Return a colour with stripes of random direction, period and strength, (H, W, 3)."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    period, strength = rng.uniform(4, 24), rng.uniform(5, 35)
    wave = np.sin((np.cos(angle) * y + np.sin(angle) * x) * (2 * np.pi / period) + phase)
    shades = rng.uniform(0.4, 1.0, 3).astype(np.float32)
    return np.asarray(colour + (strength * wave)[..., None] * shades)
