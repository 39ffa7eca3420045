"""Images and masks from files, refused by name where they could be misread."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bench.data.dataset import IGNORE_INDEX, Colour, Dataset, FileFault, Sample
from bench.errors import UserError

LOSSY = ("JPEG", "MPO", "WEBP")
FORMATS = (*LOSSY, "PNG", "TIFF", "BMP", "GIF")  # whose bits a pixel are known when they are read
SCALED = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey values of few bits by
NOT_MAPPED = 254  # a colour that is of no class


class FileDataset(Dataset):
    """A dataset whose samples are an image file and a mask file each."""

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Decode the image."""
        assert sample.image is not None
        return read_image(sample.image)

    def hold(self, sample: Sample, image: Any, target: Any) -> None:
        """Hold a pair to what `read` promises; sizes are told with the files."""
        if image.shape[:2] != target.shape:
            (h, w), (mask_h, mask_w) = image.shape[:2], target.shape
            raise FileFault(
                "size mismatch",
                f"{sample.mask} is {mask_w}x{mask_h} but its image {sample.image} {w}x{h}.",
            )
        super().hold(sample, image, target)

    def unlisted(self) -> Sequence[Path]:
        """Return files that lie beside listed images and masks but are in no split."""
        return beside([file for sample in self.listed_anywhere() for file in sample.files])

    def listed_anywhere(self) -> list[Sample]:
        """Return the samples of every split that is there."""
        found: list[Sample] = []
        for split in self.splits:
            with suppress(UserError):  # a split that is not there is a finding of its own
                found += self.listed(split)
        return found


def beside(listed: Sequence[Path]) -> list[Path]:
    """Return what lies in the folders of files, has the suffix of one there, and is none of them.

    Hidden files do not count.
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
    """Return the lines of a list that are not empty.

    Raises:
        UserError: where there is no such file, with the layout that was expected.
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
        exif: what an orientation tag means: "upright" turns the image as viewers do, "stored"
            leaves the pixels as they are; without it such an image is refused.

    Raises:
        FileFault: where it cannot be decoded, has 16 bits, CMYK or transparent pixels.
    """
    image = _open(file)
    _check_colours(image, file, exif)
    turned = ImageOps.exif_transpose(image) if exif == "upright" else image
    return np.asarray(turned.convert("RGB"))


def _check_colours(image: Image.Image, file: Path, exif: str | None) -> None:
    """Refuse pixels that would not become 8-bit RGB as they are."""
    if _bits(image) > 8:
        raise _pixels(file, "16-bit pixels", "scale them to 8 bits")
    if image.mode == "CMYK":
        raise _pixels(file, "CMYK pixels", "convert the file to RGB")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in (0, 1) and exif is None:
        raise FileFault(
            "pixel format",
            f"{file}: an EXIF tag (orientation {orientation}) turns the image in viewers, but "
            "not its mask. Save it upright without the tag; a dataset `folder` can say exif: "
            "upright or exif: stored.",
        )
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None and alpha.getextrema()[0] != 255:
        raise _pixels(file, "transparent pixels", "convert the file to RGB")
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise _pixels(file, f"pixels of mode {image.mode!r}", "convert the file to 8-bit RGB")


def read_mask(file: Path, palette: Mapping[int, Colour] | None = None) -> NDArray[np.uint8]:
    """Read a mask of class indices as (H, W) uint8: palette images by index, grey ones as stored.

    Args:
        palette: colours that the labels have in a palette image; other ones show that a program
            has numbered them anew. A grey palette is let pass, a grey mask of 0 and 255 is not.

    Raises:
        FileFault: for colour, lossy or transparent masks, labels above 255 and wrong palettes.
    """
    image = _open(file)
    if image.format in LOSSY:
        raise _lossy(file, image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        wrong = values[(values < 0) | (values > 255)]
        if wrong.size:
            raise FileFault("wrong label", f"{file}: label {wrong[0]}; labels are 8-bit indices.")
        return values.astype(np.uint8)
    if image.mode not in ("P", "L", "1"):
        raise FileFault(
            "pixel format",
            f"{file}: a mask holds one class index a pixel (palette or grey), not pixels of "
            f"mode {image.mode!r}.",
        )
    mask = np.asarray(image).astype(np.uint8)
    if palette and image.mode == "P":
        _check_palette(image, mask, palette, file)
    elif palette and set(np.unique(mask)) == {0, 255}:
        raise FileFault("0/255 mask", f"{file} has the grey values 0 and 255 alone.")
    return mask // SCALED.get(_raw_mode(image), 1)


def _check_palette(
    image: Image.Image, mask: NDArray[np.uint8], palette: Mapping[int, Colour], file: Path
) -> None:
    flat = image.getpalette("RGB") or []
    for label in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist():
        found = tuple(flat[3 * label : 3 * label + 3])
        if label in palette and found not in (palette[label], (label,) * 3, ()):
            raise FileFault(
                "wrong palette",
                f"{file}: index {label} has the colour {found}, not {palette[label]}: a program "
                "has numbered the colours anew. Restore the original file.",
            )


def map_labels(
    mask: NDArray[np.uint8],
    to: Mapping[int, int],
    file: Path,
    palette: Sequence[Colour] = (),
    binary_advice: str = "",
) -> NDArray[np.uint8]:
    """Turn the labels of a mask file into class indices and 255.

    Args:
        to: class index or 255 of each label that may occur.
        palette: the classes' colours, to recognise masks that were converted to grey.
        binary_advice: what to do about a mask of 0 and 255 alone, which is refused; "accept" lets
            it pass.

    Raises:
        FileFault: for labels that may not occur, with their numbers of pixels.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    present = {int(label) for label in counts.nonzero()[0]}
    if present == {0, 255} and binary_advice != "accept":
        advice = binary_advice or "Labels are class indices."
        raise FileFault("0/255 mask", f"{file} has the values 0 and 255 alone. {advice}")
    wrong = sorted(present - to.keys())
    if wrong:
        listed = ", ".join(f"{label} ({counts[label]} pixels)" for label in wrong[:5])
        more = f", … ({len(wrong)} labels in all)" if wrong[5:] else ""
        if palette and present <= _greys(tuple(palette)):
            raise FileFault(
                "grey-converted palette",
                f"{file}: the values {listed}{more} are the grey tones of the classes' colours: a "
                "palette image was converted to grey. Restore the original file.",
            )
        raise FileFault(
            "wrong label",
            f"{file}: label {listed}{more} outside the labels {_ranges(to)}.",
        )
    mapped: NDArray[np.uint8] = _table(tuple(sorted(to.items())))[mask]
    return mapped


@cache
def _table(to: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    table = np.full(256, IGNORE_INDEX, np.uint8)
    for label, index in to:
        if 0 <= label <= 255:
            table[label] = index
    return table


@cache
def _greys(palette: tuple[Colour, ...]) -> set[int]:
    """Return the grey tones that Pillow and OpenCV turn colours into, and void's border."""
    colours = np.array([[*palette, (0, 0, 0), (224, 224, 192), (255, 255, 255)]], np.uint8)
    return {int(tone) for tone in np.asarray(Image.fromarray(colours).convert("L")).ravel()}


def _ranges(labels: Mapping[int, int]) -> str:
    """Write {0, 1, 2, 255} as 0..2, 255."""
    parts: list[list[int]] = []
    for label in sorted(labels):
        if parts and parts[-1][-1] == label - 1:
            parts[-1].append(label)
        else:
            parts.append([label])
    return ", ".join(f"{p[0]}..{p[-1]}" if p[1:] else str(p[0]) for p in parts)


def read_colours(file: Path, to: Mapping[Colour, int]) -> NDArray[np.uint8]:
    """Read a mask whose classes are colours as indices (H, W) uint8.

    Args:
        to: class index or 255 of each colour that may occur.

    Raises:
        FileFault: for lossy masks and colours of no class, with their numbers of pixels.
    """
    image = _open(file)
    if image.format in LOSSY:
        raise _lossy(file, image)
    _check_colours(image, file, exif=None)
    pixels = np.asarray(image.convert("RGB")).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    indices: NDArray[np.uint8] = _colour_table(tuple(sorted(to.items())))[codes]
    if (indices == NOT_MAPPED).any():
        wrong, counts = np.unique(codes[indices == NOT_MAPPED], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:5]
        listed = ", ".join(
            f"{(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255)} ({n} pixels)"
            for c, n in zip(wrong[most], counts[most], strict=True)
        )
        more = f", … ({len(wrong)} colours in all)" if wrong[5:].size else ""
        raise FileFault("wrong label", f"{file}: colour {listed}{more} of no class.")
    return indices


@cache
def _colour_table(to: tuple[tuple[Colour, int], ...]) -> NDArray[np.uint8]:
    table = np.full(1 << 24, NOT_MAPPED, np.uint8)
    for (r, g, b), index in to:
        table[r << 16 | g << 8 | b] = index
    return table


def _pixels(file: Path, what: str, advice: str) -> FileFault:
    return FileFault("pixel format", f"{file}: {what} are not read; {advice}.")


def _lossy(file: Path, image: Image.Image) -> FileFault:
    text = f"{file}: a mask as {image.format} is not read, for its compression changes labels; "
    return FileFault("pixel format", f"{text}make it PNG from the original.")


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the pixels as stored, such as L;4, before they were converted."""
    return str(image.info.get("raw_mode", ""))


def _bits(image: Image.Image) -> int:
    return 16 if image.mode.startswith("I") or ";16" in _raw_mode(image) else 8


def _open(file: Path) -> Image.Image:
    """Open and decode an image, remembering how its pixels are stored."""
    try:
        with file.open("rb") as stream:
            image = Image.open(stream)
            tile: Any = next(iter(getattr(image, "tile", ())), None)
            image.load()
    except FileNotFoundError:
        raise FileFault("missing file", f"No file {file}.") from None
    except UnidentifiedImageError:
        raise FileFault("unreadable file", f"Cannot decode {file}: it is no image.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise FileFault("unreadable file", f"Cannot decode {file}: {error}.") from error
    if image.format not in FORMATS:
        raise _pixels(file, f"{image.format} files", f"convert it to one of {', '.join(FORMATS)}")
    args = tile[3] if tile is not None else ""
    image.info["raw_mode"] = args[0] if isinstance(args, tuple) else args
    return image
