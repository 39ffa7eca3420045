"""Read images from files; files that could be misread are refused by name."""

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bench.datasets.base import Dataset, FileFault, Sample
from bench.datasets.image_header import Header, read_header, what_it_is
from bench.datasets.lists import SUFFIXES
from bench.errors import UserError
from bench.text import plural

LOSSY = ("JPEG", "MPO", "WEBP")
FORMATS = (*LOSSY, "PNG", "TIFF", "BMP", "GIF")  # formats whose bit depth can be checked
ONE_BAND = {"1": 1, "L": 8}  # bits of Pillow's modes without a palette
ANIMATED = ("PNG", "GIF", "WEBP")
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error)
UNTURNED = {  # what undoes the rotation of an orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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

    def shared_masks(self) -> Mapping[Path, Sequence[Path]]:
        """Return the masks that belong to several images, with these images."""
        images: dict[Path, set[Path]] = {}
        for sample in self.listed_anywhere():
            if sample.image is not None and sample.mask is not None:
                images.setdefault(sample.mask, set()).add(sample.image)
        return {mask: sorted(those) for mask, those in images.items() if len(those) > 1}

    def remark(self) -> str:
        """Say how many files are left out or used twice; nothing if all is as it should be."""
        left, shared = self.unlisted(), self.shared_masks()
        parts = []
        if left:
            verb = "is" if len(left) == 1 else "are"
            parts.append(f"{plural(len(left), 'file')} {verb} in no split (such as {left[0]})")
        if shared:
            first = next(iter(shared))
            verb = "belongs" if len(shared) == 1 else "belong"
            parts.append(
                f"{plural(len(shared), 'mask')} {verb} to several images (such as {first})"
            )
        return f"{' and '.join(parts)}; bench data check lists all" if parts else ""

    def listed_anywhere(self) -> list[Sample]:
        """Return the samples of every split that can be listed."""
        found: list[Sample] = []
        for split in self.splits:
            with suppress(UserError):  # `check` reports a missing split
                found += self.listed(split)
        return found


def is_image(file: Path, also: Sequence[str] = ()) -> bool:
    """Whether a file's name is that of an image, and not of a hidden file."""
    return file.suffix.lower() in (*SUFFIXES, *also) and not file.name.startswith(".")


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


def read_image(file: Path, exif: str | None = None) -> NDArray[np.uint8]:
    """Read an 8-bit image as (H, W, 3) uint8 RGB; grey and palette images become RGB.

    Args:
        exif: what to do with a rotation tag: "upright" rotates the image as viewers do, "stored"
            keeps the pixels as they are, None refuses the image.

    Raises:
        FileFault: if it cannot be decoded, has several pages, or has pixels other than 8-bit grey
            or RGB.
    """
    image, header = open_image(file)
    check_colours(image, header, file, exif)
    if exif == "upright":
        image = ImageOps.exif_transpose(image)
    elif header.orientation in UNTURNED:  # a TIFF, which was rotated when it was decoded
        image = image.transpose(UNTURNED[header.orientation])
    return np.asarray(image.convert("RGB"))


def check_colours(image: Image.Image, header: Header, file: Path, exif: str | None) -> None:
    """Refuse pixels that do not convert to 8-bit RGB unchanged.

    Raises:
        FileFault: with what to do about them.
    """
    if not header.is_8_bit:
        raise not_read(file, header.pixels, "convert the file to 8 bits")
    if image.mode == "CMYK":
        raise not_read(file, "CMYK pixels", "convert the file to RGB")
    check_upright(image, header, file, exif)
    if _is_transparent(image, header):
        raise not_read(file, "transparent pixels", "convert the file to RGB")
    if image.mode == "P" and np.asarray(image).max() >= len(image.getpalette("RGB") or ()) // 3:
        raise not_read(file, "pixels without a colour in the palette", "save the file again")
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise not_read(file, f"pixels of mode {image.mode!r}", "convert the file to 8-bit RGB")


def _is_transparent(image: Image.Image, header: Header) -> bool:
    """Whether a pixel is not fully opaque."""
    see_through = image.info.get("transparency")
    if image.mode == "L" and header.bits < 8 and isinstance(see_through, int):
        scaled = see_through * 255 // (2**header.bits - 1)  # as the pixels are
        return bool((np.asarray(image) == scaled).any())
    if not image.has_transparency_data:
        return False
    return bool(image.convert("RGBA").getchannel("A").getextrema()[0] != 255)


def check_upright(image: Image.Image, header: Header, file: Path, exif: str | None) -> None:
    """Refuse a rotation tag if `exif` does not say what to do with it.

    Raises:
        FileFault: with what to do about it.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, header.orientation)
    except DECODE_ERRORS as error:
        raise FileFault("unreadable file", f"{file}: its EXIF tags are damaged.") from error
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


def open_image(file: Path) -> tuple[Image.Image, Header]:
    """Open and decode an image of one page.

    Returns:
        The image, and what the file says about its pixels.

    Raises:
        FileFault: if it does not exist, cannot be decoded, or has an unsupported format, several
            pages, or bands besides grey or RGB and an alpha channel.
    """
    header = Header()
    try:
        with file.open("rb") as stream:
            header = read_header(stream)
            _check_header(header, file)
            image = _opened(stream, file, header)
            image.load()
    except FileNotFoundError:
        raise FileFault("missing file", f"No file {file}.") from None
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        if not header.is_8_bit:
            raise not_read(file, header.pixels, "convert the file to 8 bits") from error
        raise FileFault("unreadable file", f"Cannot decode {file}: {error}.") from error
    if image.format not in FORMATS:
        raise not_read(file, f"{image.format} files", "convert it to PNG")
    return image, header


def _check_header(header: Header, file: Path) -> None:
    if header.num_pages > 1:
        raise _pages(file, header.num_pages)
    if header.problem:
        of = "" if header.is_8_bit else f" of {header.pixels}"
        raise not_read(file, f"{header.problem}{of}", "save the file as grey or RGB of 8 bits")


def _opened(stream: BinaryIO, file: Path, header: Header) -> Image.Image:
    """Open an image and count its frames before they are decoded."""
    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        if not header.is_8_bit:
            raise not_read(file, header.pixels, "convert the file to 8 bits") from None
        raise FileFault("unreadable file", f"Cannot decode {file}: {what_it_is(stream)}.") from None
    # The other pictures of an MPO are previews, depth or the view of a second lens.
    num_frames = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
    if num_frames > 1:
        raise _pages(file, num_frames)
    if image.format == "BMP" and image.mode in ONE_BAND and header.bits != ONE_BAND[image.mode]:
        raise not_read(file, f"{header.bits}-bit BMP files with a grey palette", "save it as PNG")
    return image


def _pages(file: Path, num: int) -> FileFault:
    return FileFault(
        "several pages",
        f"{file} has {num} pages or frames, and only files with one are read; save each as a file "
        "of its own.",
    )
