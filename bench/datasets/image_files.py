"""Read images from files; files that could be misread are refused by name."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bench.datasets.base import Dataset, FileFault, Sample
from bench.errors import UserError

LOSSY = ("JPEG", "MPO", "WEBP")
FORMATS = (*LOSSY, "PNG", "TIFF", "BMP", "GIF")  # formats whose bit depth can be checked


class FileDataset(Dataset):
    """A dataset in which each sample is an image file and a mask file."""

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Decode the image."""
        assert sample.image is not None
        return read_image(sample.image)

    def check_pair(self, sample: Sample, image: Any, target: Any) -> None:
        """Check a pair; if the sizes differ, the error names both files."""
        size, mask_size = np.shape(image)[:2], np.shape(target)
        if len(size) == len(mask_size) == 2 and size != mask_size:
            (h, w), (mask_h, mask_w) = size, mask_size
            raise FileFault(
                "size mismatch",
                f"{sample.mask} is {mask_w}x{mask_h} but its image {sample.image} is {w}x{h}.",
            )
        super().check_pair(sample, image, target)

    def unlisted(self) -> Sequence[Path]:
        """Return files next to listed images and masks that are in no split."""
        return beside([file for sample in self.listed_anywhere() for file in sample.files])

    def listed_anywhere(self) -> list[Sample]:
        """Return the samples of every split that can be listed."""
        found: list[Sample] = []
        for split in self.splits:
            with suppress(UserError):  # `check` reports a missing split
                found += self.listed(split)
        return found


def beside(listed: Sequence[Path]) -> list[Path]:
    """Return other files in the folders of `listed`, with the suffix of a listed file there.

    Hidden files are left out.
    """
    known = set(listed)
    suffixes: dict[Path, set[str]] = {}
    for file in listed:
        suffixes.setdefault(file.parent, set()).add(file.suffix)
    return sorted(
        file
        for folder, endings in suffixes.items()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.suffix in endings
        and file not in known
        and not file.name.startswith(".")
        and file.is_file()
    )


def read_list(file: Path, layout: str) -> list[str]:
    """Return the lines of a list file that are not empty.

    Raises:
        UserError: if the file cannot be read; if it does not exist, with the expected layout.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"No file {file}. {layout}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the list {file}: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_image(file: Path, exif: str | None = None) -> NDArray[np.uint8]:
    """Read an 8-bit image as (H, W, 3) uint8 RGB; grey and palette images become RGB.

    Args:
        exif: what to do with a rotation tag: "upright" rotates the image as viewers do, "stored"
            keeps the pixels as they are, None refuses the image.

    Raises:
        FileFault: if it cannot be decoded, or has 16-bit, CMYK or transparent pixels.
    """
    image = open_image(file)
    check_colours(image, file, exif)
    turned = ImageOps.exif_transpose(image) if exif == "upright" else image
    return np.asarray(turned.convert("RGB"))


def check_colours(image: Image.Image, file: Path, exif: str | None) -> None:
    """Refuse pixels that do not convert to 8-bit RGB unchanged.

    Raises:
        FileFault: with what to do about them.
    """
    if _bits(image) > 8:
        raise not_read(file, "16-bit pixels", "convert the file to 8 bits")
    if image.mode == "CMYK":
        raise not_read(file, "CMYK pixels", "convert the file to RGB")
    check_upright(image, file, exif)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None and alpha.getextrema()[0] != 255:
        raise not_read(file, "transparent pixels", "convert the file to RGB")
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise not_read(file, f"pixels of mode {image.mode!r}", "convert the file to 8-bit RGB")


def check_upright(image: Image.Image, file: Path, exif: str | None) -> None:
    """Refuse a rotation tag if `exif` does not say what to do with it.

    Raises:
        FileFault: with what to do about it.
    """
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in (0, 1) and exif is None:
        raise FileFault(
            "pixel format",
            f"{file}: an EXIF tag (orientation {orientation}) rotates it in viewers, so image and "
            "mask may not match. Save it upright without the tag; for images, the dataset "
            "`folder` also takes exif: upright or exif: stored.",
        )


def not_read(file: Path, what: str, advice: str) -> FileFault:
    """Return the error for pixels that could be misread."""
    return FileFault("pixel format", f"{file}: {what} are not supported; {advice}.")


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the stored pixel format, such as L;4."""
    return str(image.info.get("raw_mode", ""))


def _bits(image: Image.Image) -> int:
    return 16 if image.mode.startswith("I") or ";16" in raw_mode(image) else 8


def open_image(file: Path) -> Image.Image:
    """Open and decode an image; `raw_mode` tells how its pixels were stored.

    Raises:
        FileFault: if it does not exist, cannot be decoded, or has an unsupported format.
    """
    try:
        with file.open("rb") as stream:
            image = Image.open(stream)
            tile: Any = next(iter(getattr(image, "tile", ())), None)
            image.load()
    except FileNotFoundError:
        raise FileFault("missing file", f"No file {file}.") from None
    except UnidentifiedImageError:
        raise FileFault("unreadable file", f"Cannot decode {file}: it is not an image.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise FileFault("unreadable file", f"Cannot decode {file}: {error}.") from error
    if image.format not in FORMATS:
        raise not_read(file, f"{image.format} files", "convert it to PNG")
    args = tile[3] if tile is not None else ""
    image.info["raw_mode"] = args[0] if isinstance(args, tuple) else args
    return image
