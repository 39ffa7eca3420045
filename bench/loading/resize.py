"""Resize images and targets, with pixel centres aligned."""

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.suite.schema import Size


def resize_target(target: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize a target to (H, W) by the nearest pixel."""
    if target.shape == tuple(size):
        return target
    return cv2.resize(target, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)


def resize_image(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize an image to (H, W): by area if it shrinks, else bilinear."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method).astype(np.uint8)
