"""Files are read correctly or refused with their name."""

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from bench.datasets.base import FileFault, Sample
from bench.datasets.image_files import beside, read_image, read_list
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
    [("x.tif", "CMYK", "CMYK pixels"), ("x.tif", "F", "mode 'F'"), ("x.tif", "LAB", "mode 'LAB'")],
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


# Lists and folders


def test_lists(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("\ufeffone\r\n\r\n two \n".encode())
    assert read_list(tmp_path / "l.txt", "") == ["one", "two"]
    with pytest.raises(UserError, match=r"No file .*gone\.txt\. Expected so\."):
        read_list(tmp_path / "gone.txt", "Expected so.")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"Cannot read the list .*b\.txt"):
        read_list(tmp_path / "b.txt", "")


def test_what_lies_beside(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.txt", ".d.png"):
        (tmp_path / name).touch()
    assert beside([tmp_path / "a.png", tmp_path / "gone" / "x.png"]) == [tmp_path / "b.png"]
