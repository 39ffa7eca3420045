"""What an image file says about its own pixels: pages, bands, bits, and how to read them."""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

from PIL import ExifTags, TiffImagePlugin

Page = TiffImagePlugin.ImageFileDirectory_v2
Kind = Literal["unsigned", "signed", "float"]
HEAD = 64  # bytes at the start of a file that tell what it is
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGES = (*TIFF, b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"RIFF")
OTHER_KINDS = {  # starts of files that are often taken for images
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the file itself)",
    b"<!DOCTYPE": "a web page, perhaps from a failed download",
    b"<html": "a web page, perhaps from a failed download",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"v/1\x01": "an OpenEXR image",
    b"SIMPLE": "a FITS image",
    b"%PDF": "a PDF",
    b"\xff\x0a": "a JPEG XL image",
}
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # sample formats of TIFF
SAMPLE_KINDS: dict[int, Kind] = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "float"}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3  # photometric interpretations of TIFF
COLOURS = {
    WHITE_IS_ZERO: ("grey", 1),
    BLACK_IS_ZERO: ("grey", 1),
    RGB: ("RGB", 3),
    PALETTE: ("palette", 1),
}
LOSSY_COMPRESSIONS = (6, 7, 33003, 33004, 33005, 34712, 34892, 50001)  # JPEG, JPEG 2000, WebP
ALPHA = (1, 2)  # extra samples of TIFF that are an alpha channel
NEW_SUBFILE_TYPE = 254  # tag of TIFF
OLD_SUBFILE_TYPE, OLD_SMALLER, DESCRIPTION, DEPTH, UNCOMPRESSED = 255, 2, 270, 32997, 1
OLD_BMP = 12  # bytes of the header of a BMP of OS/2
SMALLER = 1  # flag of a TIFF page that is a reduced copy of another
SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that start a frame


@dataclass(frozen=True)
class Header:
    """How pixels are stored.

    bits, kind: of one number.
    num_pages: full-size pages or frames.
    problem: what makes the pixels unreadable, in words, such as "4 bands (RGB and 1 more)".
    is_inverted: 0 is white.
    is_lossy: compressed in a way that changes pixels.
    orientation: of a TIFF, as in EXIF; decoding rotates the pixels.
    """

    bits: int = 8
    kind: Kind = "unsigned"
    num_pages: int = 1
    problem: str | None = None
    is_inverted: bool = False
    is_lossy: bool = False
    orientation: int = 1

    @property
    def is_8_bit(self) -> bool:
        """Whether a number is an unsigned integer of at most 8 bits."""
        return self.bits <= 8 and self.kind == "unsigned"

    @property
    def pixels(self) -> str:
        """The pixels in words, such as "32-bit float pixels"."""
        kind = "" if self.kind == "unsigned" else f"{self.kind} "
        return f"{self.bits}-bit {kind}pixels"


def read_header(stream: BinaryIO) -> Header:
    """Read what a TIFF, PNG, JPEG or BMP says about its pixels; 8 bits and one page for others."""
    stream.seek(0)
    head = stream.read(HEAD)
    try:
        if head.startswith(TIFF):
            return _tiff(stream)
        if head.startswith(b"\x89PNG") and len(head) > 24:
            return Header(bits=head[24])
        if head.startswith(b"\xff\xd8"):
            return Header(bits=_jpeg_bits(stream))
        if head.startswith(b"BM"):
            [bits] = struct.unpack_from("<H", head, 24 if head[14] == OLD_BMP else 28)
            return Header(bits=min(bits, 8))
    except (SyntaxError, ValueError, TypeError, LookupError, EOFError, OSError, struct.error):
        pass  # damaged: decoding says so
    finally:
        stream.seek(0)
    return Header()


def what_it_is(stream: BinaryIO) -> str:
    """Say what a file is that Pillow does not know: "it is a web page", "it is empty"."""
    stream.seek(0)
    head = stream.read(HEAD)
    if not head:
        return "it is empty"
    if head.startswith(IMAGES):
        return "it is damaged, or its pixels are stored in a way that is not read"
    if head[4:8] == b"ftyp":
        return "it is a HEIC or AVIF image" if head[8:12] in HEIF_BRANDS else "it is a video"
    start = head.lstrip()
    found = next((name for sign, name in OTHER_KINDS.items() if start.startswith(sign)), None)
    if found is None and b"/" in head and re.fullmatch(rb"[ -~]+\n?", head):
        return "it is a text file with a path, perhaps of a link that was not copied as a link"
    return f"it is {found}" if found else "it is not an image"


def _tiff(stream: BinaryIO) -> Header:
    pages = list(_pages(stream))
    page = pages[0]
    bits = page.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    num_bands = page.get(TiffImagePlugin.SAMPLESPERPIXEL, len(bits))
    photometric = page.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    extra = page.get(TiffImagePlugin.EXTRASAMPLES, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    formats = page.get(TiffImagePlugin.SAMPLEFORMAT, (UNSIGNED,))
    kinds: set[Kind] = {SAMPLE_KINDS.get(one, "unsigned") for one in formats}
    colour, num_colours = COLOURS.get(photometric or 0, ("colour", num_bands))
    named = [colour, *(["alpha"] if extra[:1] in ((one,) for one in ALPHA) else [])]
    num_more = num_bands - num_colours - len(named) + 1
    problem = None
    if num_more > 0:
        problem = f"{num_bands} bands ({', '.join(named)} and {num_more} more)"
    elif photometric is None:
        problem = "pixels without a PhotometricInterpretation, such as whether 0 is black,"
    elif photometric == PALETTE and 0 < max(page.get(TiffImagePlugin.COLORMAP, (0,))) < 256:
        problem = "palettes of 8-bit numbers, where TIFF has 16-bit numbers,"
    elif not _is_complete(page, max(bits), num_bands):
        problem = "sparse files, which lack some of their pixels,"
    return Header(
        bits=max(bits),
        kind=min(kinds),  # float or signed, if any is
        num_pages=_num_pages(pages),
        problem=problem,
        is_inverted=photometric == WHITE_IS_ZERO,
        is_lossy=page.get(TiffImagePlugin.COMPRESSION) in LOSSY_COMPRESSIONS,
        orientation=page.get(ExifTags.Base.Orientation, 1),
    )


def _num_pages(pages: Sequence[Page]) -> int:
    """Count the full-size pages; all, if the first is not one, because the first is read."""
    full = [
        not (page.get(NEW_SUBFILE_TYPE, 0) & SMALLER or page.get(OLD_SUBFILE_TYPE) == OLD_SMALLER)
        for page in pages
    ]
    said = re.search(r"^images=(\d+)", str(pages[0].get(DESCRIPTION, "")), re.MULTILINE)
    in_one = int(said[1]) if said else pages[0].get(DEPTH, 1)  # as ImageJ stores large stacks
    return max(sum(full) if full[0] else len(full), in_one)


def _is_complete(page: Page, bits: int, num_bands: int) -> bool:
    """Whether all strips or tiles are there; only uncompressed ones have a known length."""
    tags = TiffImagePlugin
    width, height = page.get(tags.IMAGEWIDTH, 0), page.get(tags.IMAGELENGTH, 0)
    is_tiled = tags.TILEOFFSETS in page
    offsets = page.get(tags.TILEOFFSETS if is_tiled else tags.STRIPOFFSETS, ())
    counts = page.get(tags.TILEBYTECOUNTS if is_tiled else tags.STRIPBYTECOUNTS, ())
    if 0 in offsets:
        return False
    if page.get(tags.COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED or not counts:
        return True
    planes, bands = (num_bands, 1) if page.get(tags.PLANAR_CONFIGURATION) == 2 else (1, num_bands)
    columns, rows = width, height
    if is_tiled:
        across, down = page[tags.TILEWIDTH], page[tags.TILELENGTH]
        columns, rows = -(-width // across) * across, -(-height // down) * down
    return bool(sum(counts) >= planes * rows * -(-columns * bands * bits // 8))


def _pages(stream: BinaryIO) -> Iterator[Page]:
    """Yield the tags of every page of a TIFF file."""
    size = stream.seek(0, 2)
    stream.seek(0)
    start = stream.read(8)
    if start[2] == 43 or start[3] == 43:  # BigTIFF
        start += stream.read(8)
    page = TiffImagePlugin.ImageFileDirectory_v2(start)
    seen = set()
    while 0 < page.next < size and page.next not in seen:
        seen.add(place := page.next)
        page = TiffImagePlugin.ImageFileDirectory_v2(start)
        stream.seek(place)
        page.load(stream)
        yield page


def _jpeg_bits(stream: BinaryIO) -> int:
    """Return the precision that a JPEG's frame header gives."""
    stream.seek(2)
    while (marker := stream.read(2)) and len(marker) == 2:
        if marker[1] == 0xFF:  # padding
            stream.seek(-1, 1)
            continue
        [length] = struct.unpack(">H", stream.read(2))
        if marker[1] in SOF:
            return stream.read(1)[0]
        stream.seek(length - 2, 1)
    return 8
