"""Files are read correctly or refused with their name."""

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from fixtures import write_tiff
from PIL import Image
from pydantic import ValidationError

from bench.datasets.base import FileFault, Sample
from bench.datasets.image_files import beside, read_image
from bench.datasets.masks import map_labels, read_colours, read_mask
from bench.datasets.registry import find
from bench.datasets.voc import LABELS, PALETTE
from bench.errors import UserError

MASK = np.array([[0, 1, 2], [2, 255, 11]], np.uint8)
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 255, (4, 6, 3)).astype(np.uint8)


def save(array: np.ndarray, file: Path, mode: str | None = None, **args: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, **args)
    return file


def palette_mask(file: Path, colours: dict[int, tuple[int, int, int]] | None = None) -> Path:
    image = Image.new("P", (3, 2))
    image.putdata(MASK.flatten().tolist())
    colours = colours or {i: (255 - i, i // 2, 7) for i in range(256)}
    image.putpalette([c for i in range(256) for c in colours.get(i, (0, 0, 0))])
    image.save(file)
    return file


def grey_png(file: Path, values: list[list[int]], bits: int) -> Path:
    """Write a grey PNG with few bits per pixel, as annotation tools do."""
    rows = b""
    for row in values:
        packed = int("".join(f"{v:0{bits}b}" for v in row).ljust(8, "0"), 2)
        rows += b"\0" + packed.to_bytes(1, "big")

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return file


def kind_of(error: pytest.ExceptionInfo[FileFault]) -> str:
    return error.value.kind


# Images


def test_grey_and_palette_images_get_three_channels(tmp_path: Path) -> None:
    grey = read_image(save(np.full((2, 3), 9, np.uint8), tmp_path / "g.png"))
    assert grey.shape == (2, 3, 3)
    assert (grey == 9).all()
    colours = read_image(palette_mask(tmp_path / "p.png"))
    assert colours[0, 1].tolist() == [254, 0, 7]


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("x.tif", "CMYK", "CMYK pixels"),
        ("x.tif", "F", "32-bit float pixels"),
        ("x.tif", "LAB", "mode 'LAB'"),
    ],
)
def test_images_that_could_be_misread_are_refused(
    tmp_path: Path, name: str, mode: str, message: str
) -> None:
    photo = PHOTO[..., 0] if mode == "F" else PHOTO
    image = Image.fromarray(photo)
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    (image.convert(mode) if mode != "LAB" else image).save(tmp_path / name)
    with pytest.raises(FileFault, match=rf"x\.tif: .*{message}") as error:
        read_image(tmp_path / name)
    assert kind_of(error) == "pixel format"


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_images_are_refused(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    file = tmp_path / f"x.{suffix}"
    assert cv2.imwrite(str(file), RNG.integers(0, 65535, shape).astype(np.uint16))
    with pytest.raises(FileFault, match="16-bit|Cannot decode"):
        read_image(file)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "what"),
    [
        ("u1", None),
        ("u2", "16-bit pixels"),
        ("u4", "32-bit pixels"),
        ("i1", "8-bit signed pixels"),
        ("i2", "16-bit signed pixels"),
        ("f2", "16-bit float pixels"),
        ("f4", "32-bit float pixels"),
        ("f8", "64-bit float pixels"),
    ],
)
def test_bits_are_told_from_the_file(
    tmp_path: Path, planar: bool, order: str, dtype: str, what: str | None
) -> None:
    for name, pixels in (("rgb", PHOTO), ("grey", PHOTO[..., :1])):
        file = write_tiff(tmp_path / f"{name}.tif", pixels.astype(order + dtype), planar=planar)
        if what is None:
            assert np.array_equal(read_image(file), np.broadcast_to(pixels, PHOTO.shape))
            continue
        with pytest.raises(FileFault, match=rf"{name}\.tif: {what} are not supported"):
            read_image(file)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_16_bit_tiffs_are_refused_however_compressed(tmp_path: Path, compression: int) -> None:
    file = tmp_path / "x.tif"
    pixels = PHOTO.astype(np.uint16) * 257
    assert cv2.imwrite(str(file), pixels, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    with pytest.raises(FileFault, match="16-bit pixels"):
        read_image(file)


@pytest.mark.parametrize(
    ("num_bands", "extra", "what"),
    [
        (4, (0,), r"4 bands \(RGB and 1 more\)"),
        (4, (), r"4 bands \(RGB and 1 more\)"),
        (5, (0, 0), r"5 bands \(RGB and 2 more\)"),
        (5, (2, 0), r"5 bands \(RGB, alpha and 1 more\)"),
        (2, (0,), r"2 bands \(grey and 1 more\)"),
        (4, (2,), "transparent pixels"),
    ],
)
@pytest.mark.parametrize("planar", [False, True])
def test_further_bands_are_not_dropped(
    tmp_path: Path, num_bands: int, extra: tuple[int, ...], what: str, planar: bool
) -> None:
    pixels = RNG.integers(0, 200, (4, 6, num_bands)).astype(np.uint8)
    file = write_tiff(tmp_path / "x.tif", pixels, extra=extra, planar=planar)
    with pytest.raises(FileFault, match=what):
        read_image(file)


def test_opaque_alpha_of_a_tiff_is_dropped(tmp_path: Path) -> None:
    opaque = np.dstack([PHOTO, np.full((4, 6), 255, np.uint8)])
    assert np.array_equal(read_image(write_tiff(tmp_path / "x.tif", opaque, extra=(2,))), PHOTO)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_files_of_several_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Image.new("RGB", (6, 4), (50 * i, 0, 0)) for i in range(3)]
    pages[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=pages[1:])
    read = [read_image] if suffix == "webp" else [read_image, read_mask]
    for one in read:
        with pytest.raises(FileFault, match=rf"x\.{suffix} has 3 pages or frames") as error:
            one(tmp_path / f"x.{suffix}")
        assert kind_of(error) == "several pages"


def test_a_smaller_copy_is_no_page(tmp_path: Path) -> None:
    both = write_tiff(tmp_path / "x.tif", PHOTO, pages=[0, 1])  # as in cloud-optimised GeoTIFFs
    assert np.array_equal(read_image(both), PHOTO)
    with pytest.raises(FileFault, match="has 2 pages"):
        read_image(write_tiff(tmp_path / "y.tif", PHOTO, pages=[0, 4]))  # a mask of transparency


@pytest.mark.parametrize("target", [np.zeros((4, 6, 1), np.uint8), np.zeros(4, np.uint8), "mask"])
def test_a_target_that_is_no_mask_is_refused_by_name(target: object) -> None:
    folder = find("folder")
    options = folder.Options.model_validate({"classes": ["a"]}, context={"folder": Path()})
    dataset = folder(None, options)
    with pytest.raises(FileFault, match="sample 'x'"):
        dataset.check_pair(Sample("x", Path("x.png"), Path("m.png")), PHOTO, target)


@pytest.mark.parametrize(
    ("num", "encoding", "accepted"),
    [(255, "index", True), (256, "index", False), (254, "colour", True), (255, "colour", False)],
)
def test_no_class_shares_its_index_with_void(num: int, encoding: str, accepted: bool) -> None:
    classes = [{"name": str(i), "colour": [i, 0, 0]} for i in range(256)][:num]
    given = {"classes": classes, "encoding": encoding}
    if accepted:
        assert len(find("folder").Options.model_validate(given).classes) == num
    else:
        with pytest.raises(ValidationError, match="at most 25[45]"):
            find("folder").Options.model_validate(given)


def test_formats_of_unknown_depth_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.ppm"
    file.write_bytes(b"P6 1 1 65535\n" + (300).to_bytes(2, "big") * 3)  # Pillow reads 1, 1, 1
    with pytest.raises(FileFault, match="PPM files are not supported; convert it to PNG"):
        read_image(file)


def test_colour_masks_lose_no_bits(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    assert cv2.imwrite(str(file), np.full((2, 2, 3), 256, np.uint16))
    with pytest.raises(FileFault, match="16-bit pixels"):
        read_colours(file, {(1, 1, 1): 0})


def test_alpha_that_hides_nothing_is_dropped(tmp_path: Path) -> None:
    opaque = np.dstack([PHOTO, np.full((4, 6), 255, np.uint8)])
    assert np.array_equal(read_image(save(opaque, tmp_path / "a.png")), PHOTO)
    opaque[0, 0, 3] = 254
    with pytest.raises(FileFault, match="transparent pixels are not supported"):
        read_image(save(opaque, tmp_path / "b.png"))


def test_exif_rotation_is_refused_unless_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    file = save(PHOTO, tmp_path / "t.png", exif=exif)
    with pytest.raises(FileFault, match=r"t\.png: an EXIF tag \(orientation 6\)"):
        read_image(file)
    assert np.array_equal(read_image(file, exif="stored"), PHOTO)
    assert np.array_equal(read_image(file, exif="upright"), np.rot90(PHOTO, -1))
    exif[0x0112] = 1
    assert np.array_equal(read_image(save(PHOTO, tmp_path / "u.png", exif=exif)), PHOTO)


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    photo = RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    file = save(photo, tmp_path / "t.jpg")
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(FileFault, match=r"Cannot decode .*t\.jpg: .*truncated") as error:
        read_image(file)
    assert kind_of(error) == "unreadable file"


@pytest.mark.parametrize(
    ("content", "message"), [(b"no image", "Cannot decode"), (b"", "Cannot"), (None, "No file")]
)
def test_what_is_no_image(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "x.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"{message}.*x.png"):
        read_image(file)


# Masks


def test_palette_masks_are_read_by_index(tmp_path: Path) -> None:
    assert read_mask(palette_mask(tmp_path / "m.png")).tolist() == MASK.tolist()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_masks_of_few_bits_are_read_as_stored(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    file = grey_png(tmp_path / "m.png", [[0, top], [top, 1]], bits)
    assert read_mask(file).tolist() == [[0, top], [top, 1]]  # Pillow gives 0, 255, 255, 255/top


def test_16_bit_masks_hold_small_labels(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    assert cv2.imwrite(str(file), np.array([[0, 7], [255, 3]], np.uint16))
    assert read_mask(file).tolist() == [[0, 7], [255, 3]]
    assert cv2.imwrite(str(file), np.array([[0, 1007]], np.uint16))
    with pytest.raises(FileFault, match=r"label 1007 is outside 0\.\.255"):
        read_mask(file)


@pytest.mark.parametrize(
    ("dtype", "labels"),
    [
        *((dtype, True) for dtype in ("u1", "u2", "u4", "i2", "i4")),
        *((dtype, False) for dtype in ("i1", "f4", "f8", "u8")),
    ],
)
def test_masks_of_any_integers_are_read(tmp_path: Path, dtype: str, labels: bool) -> None:
    values = np.array([[0, 7], [100, 3]])
    file = write_tiff(tmp_path / "m.tif", values.astype(f"<{dtype}")[..., None])
    if labels:
        assert read_mask(file).tolist() == values.tolist()
    else:
        with pytest.raises(FileFault, match=r"m\.tif: .* pixels are not supported"):
            read_mask(file)


def test_negative_labels_are_named(tmp_path: Path) -> None:
    file = write_tiff(tmp_path / "m.tif", np.array([[0, -1]], "<i2")[..., None])
    with pytest.raises(FileFault, match="label -1 is outside"):
        read_mask(file)


def test_masks_of_which_0_is_white_are_refused(tmp_path: Path) -> None:
    file = write_tiff(
        tmp_path / "m.tif", MASK[..., None], photometric=0
    )  # Pillow gives 255 - label
    with pytest.raises(FileFault, match="grey values of which 0 is white"):
        read_mask(file)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_tiff_masks_of_few_bits_are_read_as_stored(tmp_path: Path, bits: int) -> None:
    file = write_tiff(tmp_path / "m.tif", np.array([[0b00011011]], np.uint8)[..., None], bits=bits)
    assert read_mask(file).tolist() == [[0, 1, 2, 3] if bits == 2 else [1, 11]]


def test_lossy_tiff_masks_are_refused(tmp_path: Path) -> None:
    file = save(np.tile(MASK, (8, 8)), tmp_path / "m.tif", compression="jpeg")
    for read in (read_mask, lambda file: read_colours(file, {})):
        with pytest.raises(FileFault, match="a mask cannot be TIFF with lossy compression"):
            read(file)


@pytest.mark.parametrize(("mode", "name"), [("RGB", "RGB"), ("RGBA", "RGBA"), ("LA", "LA")])
def test_colour_masks_are_refused(tmp_path: Path, mode: str, name: str) -> None:
    file = save(PHOTO, tmp_path / "m.png", mode)
    with pytest.raises(FileFault, match=f"not pixels of mode '{name}'"):
        read_mask(file)


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    file = save(MASK, tmp_path / "m.jpg")
    with pytest.raises(FileFault, match="a mask cannot be JPEG"):
        read_mask(file)
    with pytest.raises(FileFault, match="a mask cannot be JPEG"):
        read_colours(file, {})


def test_rotated_masks_are_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    file = save(MASK, tmp_path / "m.png", exif=exif)
    for read in (read_mask, lambda file: read_colours(file, {})):
        with pytest.raises(FileFault, match=r"an EXIF tag \(orientation 8\)"):
            read(file)


def test_a_palette_that_was_numbered_anew_is_refused(tmp_path: Path) -> None:
    right = palette_mask(tmp_path / "a.png", PALETTE)
    assert read_mask(right, PALETTE).tolist() == MASK.tolist()
    grey = palette_mask(tmp_path / "b.png", {i: (i, i, i) for i in range(256)})
    assert read_mask(grey, PALETTE).tolist() == MASK.tolist()
    swapped = PALETTE | {1: PALETTE[2], 2: PALETTE[1]}
    with pytest.raises(FileFault, match=r"index 1 has the colour \(0, 128, 0\)") as error:
        read_mask(palette_mask(tmp_path / "c.png", swapped), PALETTE)
    assert kind_of(error) == "wrong palette"


def test_display_colours_must_not_exchange_labels(tmp_path: Path) -> None:
    colours = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}
    for stored in (  # right; of other colours; filled with black; grey
        colours,
        {0: (9, 9, 9), 1: (200, 0, 0), 2: (1, 2, 3)},
        {0: (0, 0, 0), 1: (0, 0, 0), 2: (0, 0, 0)},
        {i: (i, i, i) for i in range(256)},
    ):
        file = palette_mask(tmp_path / "m.png", stored)
        assert read_mask(file, colours, exact=False).tolist() == MASK.tolist()
    swapped = palette_mask(tmp_path / "m.png", {0: (128, 0, 0), 1: (7, 7, 7), 2: (8, 8, 8)})
    message = r"gives label 0 the colour \(128, 0, 0\), which is that of label 1"
    with pytest.raises(FileFault, match=message) as error:
        read_mask(swapped, colours, exact=False)
    assert kind_of(error) == "wrong palette"


def test_labels_are_mapped() -> None:
    to = {0: 2, 1: 0, 2: 1, 11: 255, 255: 255}
    assert map_labels(MASK, to, Path("m")).tolist() == [[2, 0, 1], [1, 255, 255]]


def test_labels_that_may_not_occur_are_counted() -> None:
    message = (
        r"^m\.png has labels that are not allowed: 2 \(2 pixels\), 11 \(1 pixel\)\. "
        r"Allowed: 0\.\.1, 255\.$"
    )
    with pytest.raises(FileFault, match=message) as error:
        map_labels(MASK, {0: 0, 1: 1, 255: 255}, Path("m.png"))
    assert kind_of(error) == "wrong label"


def test_a_0_255_mask_is_recognised() -> None:
    mask = np.array([[0, 255]], np.uint8)
    with pytest.raises(FileFault, match="has only the values 0 and 255. Do so.") as error:
        map_labels(mask, {0: 0, 1: 1, 255: 255}, Path("m"), binary_advice="Do so.")
    assert kind_of(error) == "0/255 mask"
    accepted = map_labels(mask, {0: 0, 255: 1}, Path("m"), binary_advice="accept")
    assert accepted.tolist() == [[0, 1]]


def test_a_palette_converted_to_grey_is_recognised(tmp_path: Path) -> None:
    grey = np.asarray(Image.open(palette_mask(tmp_path / "m.png", PALETTE)).convert("L"))
    with pytest.raises(FileFault, match="grey tones of the classes' colours") as error:
        map_labels(grey, {i: i for i in range(21)}, Path("m"), LABELS.palette)
    assert kind_of(error) == "grey-converted palette"


def test_colours_are_mapped_and_others_counted(tmp_path: Path) -> None:
    red, blue = (255, 0, 0), (0, 0, 255)
    file = save(np.array([[red, blue], [blue, blue]], np.uint8), tmp_path / "m.png")
    assert read_colours(file, {red: 4, blue: 255}).tolist() == [[4, 255], [255, 255]]
    with pytest.raises(
        FileFault, match=re.escape("has colours of no class: (0, 0, 255) (3 pixels)")
    ):
        read_colours(file, {red: 4})


# Folders


def test_what_lies_beside(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.txt", ".d.png"):
        (tmp_path / name).touch()
    assert beside([tmp_path / "a.png", tmp_path / "gone" / "x.png"]) == [tmp_path / "b.png"]


# Files that say less than they should


def test_a_turned_tiff_is_refused_unless_told(tmp_path: Path) -> None:
    """Pillow turns a TIFF while decoding it, and removes the tag."""
    for orientation in range(2, 9):
        file = write_tiff(tmp_path / f"{orientation}.tif", PHOTO, more={274: [orientation]})
        with pytest.raises(FileFault, match=rf"an EXIF tag \(orientation {orientation}\)"):
            read_image(file)
        assert np.array_equal(read_image(file, exif="stored"), PHOTO)
        upright = np.asarray(Image.open(file).convert("RGB"))
        assert np.array_equal(read_image(file, exif="upright"), upright)
    mask = write_tiff(tmp_path / "m.tif", MASK[..., None], more={274: [3]})
    with pytest.raises(FileFault, match="orientation 3"):
        read_mask(mask)


def test_a_tiff_that_does_not_say_whether_0_is_black(tmp_path: Path) -> None:
    file = write_tiff(tmp_path / "m.tif", MASK[..., None], more={262: []})
    for read in (read_image, read_mask):
        with pytest.raises(FileFault, match="without a PhotometricInterpretation"):
            read(file)


@pytest.mark.parametrize("more", [{273: [0]}, {279: [3]}])
def test_pixels_that_are_not_in_the_file(tmp_path: Path, more: dict) -> None:
    file = write_tiff(tmp_path / "m.tif", MASK[..., None], more=more)
    for read in (read_image, read_mask):
        with pytest.raises(FileFault, match="sparse files, which lack some of their pixels"):
            read(file)


def test_a_small_first_page_is_not_the_image(tmp_path: Path) -> None:
    file = write_tiff(tmp_path / "x.tif", PHOTO, pages=[1, 0])
    with pytest.raises(FileFault, match="has 2 pages"):
        read_image(file)


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_masks_with_a_grey_palette(tmp_path: Path, bits: int) -> None:
    """Pillow reads a BMP whose palette is black and white as 1 bit per pixel."""
    width, rows = 8, [[0, 1, 0, 1, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0, 1, 1]]
    lines = [bytes(row) for row in reversed(rows)]
    if bits == 4:
        lines = [bytes(16 * a + b for a, b in zip(r[::2], r[1::2], strict=True)) for r in lines]
    packed = b"".join(lines)
    start = 14 + 40 + 8
    header = struct.pack("<IiiHHIIiiII", 40, width, 2, 1, bits, 0, len(packed), 0, 0, 2, 0)
    palette = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    file = tmp_path / "m.bmp"
    file.write_bytes(
        b"BM" + struct.pack("<IHHI", start + len(packed), 0, 0, start) + header + palette + packed
    )
    with pytest.raises(FileFault, match=f"{bits}-bit BMP files with a grey palette"):
        read_mask(file)


@pytest.mark.parametrize(
    ("greys", "is_clear"),
    [
        ({0: 0, 1: 1, 2: 2, 11: 11}, True),
        ({0: 0, 1: 10, 2: 20, 11: 110}, True),  # spread for display
        ({0: 0, 1: 0, 2: 0, 11: 0}, True),  # no palette to speak of
        ({0: 0, 1: 2, 2: 1, 11: 11}, False),
        ({0: 26, 1: 21, 2: 11, 11: 7}, False),  # numbered anew by a program
        ({0: 255, 1: 170, 2: 85, 11: 0}, False),
    ],
)
def test_grey_palettes(tmp_path: Path, greys: dict[int, int], is_clear: bool) -> None:
    colours = {label: (grey,) * 3 for label, grey in greys.items()}
    file = palette_mask(tmp_path / "m.png", colours)
    if is_clear:
        assert read_mask(file, {}, exact=False).tolist() == MASK.tolist()
        return
    with pytest.raises(FileFault, match="its palette shows label") as error:
        read_mask(file, {}, exact=False)
    assert kind_of(error) == "wrong palette"


def test_pixels_without_a_colour(tmp_path: Path) -> None:
    content = palette_mask(tmp_path / "m.png").read_bytes()
    at = content.index(b"PLTE") - 4
    [length] = struct.unpack(">I", content[at : at + 4])
    body = b"PLTE" + bytes([1, 2, 3, 4, 5, 6])
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "m.png").write_bytes(content[:at] + chunk + content[at + length + 12 :])
    for read in (read_image, lambda file: read_colours(file, {(1, 2, 3): 0, (0, 0, 0): 1})):
        with pytest.raises(FileFault, match="pixels without a colour in the palette"):
            read(tmp_path / "m.png")


@pytest.mark.parametrize("bits", [2, 4])
def test_transparent_greys_of_few_bits(tmp_path: Path, bits: int) -> None:
    file = grey_png(tmp_path / "m.png", [[0, 1], [1, 1]], bits)
    content = file.read_bytes()
    at = content.index(b"IDAT") - 4
    body = b"tRNS" + struct.pack(">H", 1)
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(content[:at] + chunk + content[at:])
    with pytest.raises(FileFault, match="transparent pixels"):
        read_image(file)


def test_few_bits_are_no_0_255_mask(tmp_path: Path) -> None:
    file = grey_png(tmp_path / "m.png", [[0, 15], [15, 0]], 4)
    assert read_mask(file, PALETTE).tolist() == [[0, 15], [15, 0]]


def test_damaged_tags_are_named(tmp_path: Path) -> None:
    file = save(PHOTO, tmp_path / "x.png")
    content = file.read_bytes()
    at = content.index(b"IDAT") - 4
    body = b"eXIf" + b"no tags"
    chunk = struct.pack(">I", 7) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(content[:at] + chunk + content[at:])
    with pytest.raises(FileFault, match=r"x\.png: its EXIF tags are damaged"):
        read_image(file)
