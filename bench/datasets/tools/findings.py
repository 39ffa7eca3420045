"""The results of checking a dataset."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and in which split."""

    kind: str
    message: str
    split: str | None = None


@dataclass
class Split:
    """The contents of a split.

    expected: the official number of images; None if there is none.
    pixels: (K,), pixels of each class.
    images: (K,), images that contain the class.
    void: void pixels.
    """

    name: str
    num_images: int
    expected: int | None
    pixels: Counts
    images: Counts
    void: int = 0


@dataclass
class CheckReport:
    """The contents of a dataset, and what is wrong with it."""

    name: str
    title: str
    classes: tuple[str, ...]
    splits: list[Split] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "dataset": self.name,
            "title": self.title,
            "splits": {
                split.name: {
                    "images": split.num_images,
                    "expected": split.expected,
                    "void_pixels": split.void,
                    "classes": {
                        name: {"pixels": int(pixels), "images": int(images)}
                        for name, pixels, images in zip(
                            self.classes, split.pixels, split.images, strict=True
                        )
                    },
                }
                for split in self.splits
            },
            "findings": [vars(finding) for finding in self.findings],
            "notes": self.notes,
        }
