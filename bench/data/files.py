"""Images and masks from files, refused by name where they could be misread."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.data.dataset import IGNORE_INDEX, Pair
from bench.errors import UserError


def read_pair(image_file: Path, mask_file: Path, num_classes: int, void: int) -> Pair:
    """Read an image and its index mask; the label `void` becomes 255.

    Raises:
        UserError: for an unreadable file, unequal sizes, or a label outside 0..K-1 and void.
    """
    image, mask = read_image(image_file), read_mask(mask_file)
    if image.shape[:2] != mask.shape:
        (h, w), (mask_h, mask_w) = image.shape[:2], mask.shape
        raise UserError(f"{mask_file} is {mask_w}x{mask_h} but its image {image_file} {w}x{h}.")
    if void != IGNORE_INDEX:
        mask = np.where(mask == void, IGNORE_INDEX, mask).astype(np.uint8)
    check_labels(mask, num_classes, mask_file)
    return image, mask


def read_image(file: Path) -> NDArray[np.uint8]:
    """Read an RGB or grey 8-bit image as (H, W, 3) uint8."""
    with _open(file) as image:
        if image.mode not in ("RGB", "L"):
            raise UserError(
                f"{file}: pixels of mode {image.mode!r} are not supported; "
                "convert the file to 8-bit RGB."
            )
        return np.asarray(_decode(image, file).convert("RGB"))


def read_mask(file: Path) -> NDArray[np.uint8]:
    """Read a mask of class indices, palette or grey 8-bit, as (H, W) uint8; colours are ignored."""
    with _open(file) as image:
        if image.mode not in ("P", "L"):
            raise UserError(
                f"{file}: a mask holds one 8-bit class index a pixel (palette or grey), "
                f"not pixels of mode {image.mode!r}."
            )
        return np.asarray(_decode(image, file))


def check_labels(mask: NDArray[np.uint8], num_classes: int, file: Path) -> None:
    """Refuse labels that are neither a class nor void."""
    counts = np.bincount(mask.ravel(), minlength=256)
    wrong = [int(v) for v in counts[num_classes:IGNORE_INDEX].nonzero()[0] + num_classes]
    if wrong:
        listed = ", ".join(f"{v} ({counts[v]} pixels)" for v in wrong[:5])
        raise UserError(
            f"{file}: label {listed} outside the classes 0..{num_classes - 1} and void "
            f"{IGNORE_INDEX}."
        )


def _open(file: Path) -> Image.Image:
    try:
        image = Image.open(file)
    except FileNotFoundError as error:
        raise UserError(f"No file {file}.") from error
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"Cannot read the image {file}: {error}.") from error
    return image if image.mode in ("P", "L", "RGB") else _decode(image, file)


def _decode(image: Image.Image, file: Path) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"Cannot decode {file}: {error}. Replace the file.") from error
    return image
