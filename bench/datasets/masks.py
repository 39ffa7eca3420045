"""Read masks by index or by colour; files that could be misread are refused by name."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.datasets.base import IGNORE_INDEX, Colour, FileFault
from bench.datasets.image_files import LOSSY, check_colours, check_upright, not_read, open_image
from bench.text import listed, plural

SCALED = {2: 85, 4: 17}  # Pillow multiplies grey values of so many bits by these
NOT_MAPPED = 254  # marks a colour of no class


def read_mask(
    file: Path, palette: Mapping[int, Colour] | None = None, *, exact: bool = True
) -> NDArray[np.uint8]:
    """Read a mask of class indices as (H, W) uint8: palette images by index, grey ones as stored.

    Args:
        palette: expected colour of each label in a palette image; other colours show that a
            program has renumbered the palette. A grey palette is accepted.
        exact: if False, the colours are only for display: a palette is wrong if it gives a label
            the colour of another one. If True, a grey mask of only 0 and 255 is refused, too.

    Raises:
        FileFault: for colour, lossy or transparent masks, labels above 255 and wrong palettes.
    """
    image, header = open_image(file)
    if image.format in LOSSY or header.is_lossy:
        raise _lossy(file, image)
    check_upright(image, header, file, exif=None)
    if header.kind == "float" or (header.kind, header.bits) == ("signed", 8):
        raise not_read(file, header.pixels, "save the mask with unsigned integers")
    if header.is_inverted and image.mode != "P":
        raise not_read(file, "grey values of which 0 is white", "save the mask with 0 as black")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        wrong = values[(values < 0) | (values > 255)]
        if wrong.size:
            raise FileFault("wrong label", f"{file}: label {wrong[0]} is outside 0..255.")
        return values.astype(np.uint8)
    if image.mode not in ("P", "L", "1"):
        raise FileFault(
            "colour mask" if image.mode in ("RGB", "RGBA") else "pixel format",
            f"{file}: a mask needs one class index per pixel (palette or grey), not pixels of "
            f"mode {image.mode!r}.",
        )
    mask = np.asarray(image).astype(np.uint8)
    if image.mode == "L":
        mask //= SCALED.get(header.bits, 1)
    if image.mode == "P":
        _check_palette(image, mask, palette or {}, file, exact)
    elif palette and exact and set(np.unique(mask)) == {0, 255}:
        raise FileFault("0/255 mask", f"{file} has only the grey values 0 and 255.")
    return mask


def _check_palette(
    image: Image.Image,
    mask: NDArray[np.uint8],
    palette: Mapping[int, Colour],
    file: Path,
    exact: bool,
) -> None:
    flat = image.getpalette("RGB") or []
    stored: list[Colour] = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]
    of_classes = [stored[label] for label in palette if label < len(stored)]
    used = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    shown = {label: stored[label] for label in used if label < len(stored)}
    if not exact and (wrong := _misleading_grey(shown, palette)) is not None:
        raise FileFault(
            "wrong palette",
            f"{file}: its palette shows label {wrong} as the grey {shown[wrong][0]}, so it is not "
            "clear which of the two is the label. Save the mask as plain grey.",
        )
    for label in used:
        if label not in palette or label >= len(stored):
            continue
        found = stored[label]
        if found in (palette[label], (label,) * 3):
            continue
        if exact:
            raise FileFault(
                "wrong palette",
                f"{file}: index {label} has the colour {found}, not {palette[label]}: a program "
                "has renumbered the palette. Restore the original file.",
            )
        # A colour of several labels fills the unused end of a palette.
        if found in palette.values() and of_classes.count(found) == 1:
            other = next(one for one, colour in palette.items() if colour == found)
            raise FileFault(
                "wrong palette",
                f"{file}: its palette gives label {label} the colour {found}, which is that of "
                f"label {other} and not {palette[label]}.",
            )


def _misleading_grey(shown: Mapping[int, Colour], palette: Mapping[int, Colour]) -> int | None:
    """Return a label whose grey is neither itself nor in proportion; None if there is none.

    Programs that reduce colours number grey masks anew, by frequency or in reverse.
    """
    greys = {label: c[0] for label, c in shown.items() if c[0] == c[1] == c[2] and label != 255}
    if len(greys) < 2 or len(greys) < len(shown.keys() - {255}):
        return None
    if all(shown[label] == palette.get(label) for label in greys):
        return None
    if len(set(greys.values())) == 1:  # an unused palette
        return None
    factor = greys[max(greys)] / max(greys)
    rounding = 0 if factor.is_integer() else 1
    wrong = (label for label, grey in greys.items() if abs(grey - factor * label) > rounding)
    return next(wrong, None)


def colours_of(to: Mapping[int, int], palette: Sequence[Colour]) -> dict[int, Colour]:
    """Return the colour of each label that stands for a class, for `read_mask`."""
    return {label: palette[index] for label, index in to.items() if index != IGNORE_INDEX}


def map_labels(
    mask: NDArray[np.uint8],
    to: Mapping[int, int],
    file: Path,
    palette: Sequence[Colour] = (),
    binary_advice: str = "",
) -> NDArray[np.uint8]:
    """Turn the labels of a mask file into class indices and 255.

    Args:
        to: class index, or 255, of each allowed label.
        palette: the classes' colours, to recognise masks that were converted to grey.
        binary_advice: what to do about a mask of only 0 and 255, which is refused; "accept"
            accepts it.

    Raises:
        FileFault: for labels that are not allowed, with their numbers of pixels.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    present = {int(label) for label in counts.nonzero()[0]}
    if present == {0, 255} and binary_advice != "accept":
        advice = binary_advice or "Labels must be class indices."
        raise FileFault("0/255 mask", f"{file} has only the values 0 and 255. {advice}")
    wrong = sorted(present - to.keys())
    if wrong:
        labels = listed(f"{label} ({plural(int(counts[label]), 'pixel')})" for label in wrong)
        if palette and present <= _greys(tuple(palette)):
            raise FileFault(
                "grey-converted palette",
                f"{file}: the values {labels} are the grey tones of the classes' colours: a "
                "palette image was converted to grey. Restore the original file.",
            )
        raise FileFault(
            "wrong label",
            f"{file} has labels that are not allowed: {labels}. Allowed: {_ranges(to)}.",
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
    """Return the grey values that Pillow and OpenCV give to these colours and to void borders."""
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
    """Read a colour mask as class indices, (H, W) uint8.

    Args:
        to: class index, or 255, of each allowed colour.

    Raises:
        FileFault: for lossy masks, and for colours of no class, with their numbers of pixels.
    """
    image, header = open_image(file)
    if image.format in LOSSY or header.is_lossy:
        raise _lossy(file, image)
    check_colours(image, header, file, exif=None)
    pixels = np.asarray(image.convert("RGB")).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    indices: NDArray[np.uint8] = _colour_table(tuple(sorted(to.items())))[codes]
    if (indices == NOT_MAPPED).any():
        wrong, counts = np.unique(codes[indices == NOT_MAPPED], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        colours = listed(
            f"{(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255)} ({plural(int(n), 'pixel')})"
            for c, n in zip(wrong[order], counts[order], strict=True)
        )
        raise FileFault("wrong label", f"{file} has colours of no class: {colours}.")
    return indices


@cache
def _colour_table(to: tuple[tuple[Colour, int], ...]) -> NDArray[np.uint8]:
    table = np.full(1 << 24, NOT_MAPPED, np.uint8)
    for (r, g, b), index in to:
        table[r << 16 | g << 8 | b] = index
    return table


def _lossy(file: Path, image: Image.Image) -> FileFault:
    kind = image.format if image.format in LOSSY else f"{image.format} with lossy compression"
    text = f"{file}: a mask cannot be {kind}, because its compression changes labels; "
    return FileFault("pixel format", f"{text}save it as PNG from the original.")
