"""Read images from files; files that could be misread are refused by name."""

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
ANIMATED = ("PNG", "GIF", "WEBP")
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError)


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


def is_image(file: Path) -> bool:
    """Whether a file's name is that of an image, and not of a hidden file."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


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
    turned = ImageOps.exif_transpose(image) if exif == "upright" else image
    return np.asarray(turned.convert("RGB"))


def check_colours(image: Image.Image, header: Header, file: Path, exif: str | None) -> None:
    """Refuse pixels that do not convert to 8-bit RGB unchanged.

    Raises:
        FileFault: with what to do about them.
    """
    if not header.is_8_bit:
        raise not_read(file, header.pixels, "convert the file to 8 bits")
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
            _check_bands(header, file)
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


def _check_bands(header: Header, file: Path) -> None:
    if header.num_pages > 1:
        raise _pages(file, header.num_pages)
    if header.extra_bands:
        what = header.extra_bands + ("" if header.is_8_bit else f" of {header.pixels}")
        raise not_read(file, what, "save red, green and blue as an image of 3 bands of 8 bits")


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
    return image


def _pages(file: Path, num: int) -> FileFault:
    return FileFault(
        "several pages",
        f"{file} has {num} pages or frames, and only files with one are read; save each as a file "
        "of its own.",
    )
