from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.files import read_image, read_mask, read_pair
from bench.errors import UserError

MASK = np.array([[0, 1, 2], [2, 255, 11]], np.uint8)


def save(array: np.ndarray, file: Path, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file)
    return file


def palette_mask(file: Path) -> Path:
    image = Image.new("P", (3, 2))
    image.putdata(MASK.flatten().tolist())
    image.putpalette([c for i in range(256) for c in (255 - i, i // 2, 7)])
    image.save(file)
    return file


def test_palette_masks_are_read_by_index(tmp_path: Path) -> None:
    assert read_mask(palette_mask(tmp_path / "m.png")).tolist() == MASK.tolist()


def test_void_becomes_255(tmp_path: Path) -> None:
    image = save(np.zeros((2, 3, 3), np.uint8), tmp_path / "i.png")
    _, target = read_pair(image, palette_mask(tmp_path / "m.png"), 11, 11)
    assert target.tolist() == [[0, 1, 2], [2, 255, 255]]


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    image = read_image(save(np.full((2, 3), 9, np.uint8), tmp_path / "g.png"))
    assert image.shape == (2, 3, 3)
    assert (image == 9).all()


def test_a_label_outside_the_classes_names_the_file(tmp_path: Path) -> None:
    image = save(np.zeros((2, 3, 3), np.uint8), tmp_path / "i.png")
    with pytest.raises(
        UserError, match=r"m\.png: label 11 \(1 pixels\) outside the classes 0\.\.2"
    ):
        read_pair(image, palette_mask(tmp_path / "m.png"), 3, 255)


def test_sizes_must_agree(tmp_path: Path) -> None:
    image = save(np.zeros((4, 3, 3), np.uint8), tmp_path / "i.png")
    with pytest.raises(UserError, match=r"m\.png is 3x2 but its image .*i\.png 3x4"):
        read_pair(image, palette_mask(tmp_path / "m.png"), 12, 255)


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = save(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8), tmp_path / "t.jpg")
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(UserError, match=r"Cannot decode .*t\.jpg: .*truncated"):
        read_image(file)


@pytest.mark.parametrize(
    ("content", "message"), [(b"no image", "Cannot read the image"), (None, "No file")]
)
def test_what_is_no_image(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "x.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"{message}.*x.png"):
        read_image(file)


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "I;16"])
def test_images_that_could_be_misread_are_refused(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.zeros((2, 2), np.uint16)).save(file)
    else:
        save(np.zeros((2, 2, 3), np.uint8), file, mode)
    with pytest.raises(UserError, match=f"mode '{mode}'"):
        read_image(file)


def test_colour_masks_are_refused(tmp_path: Path) -> None:
    file = save(np.zeros((2, 2, 3), np.uint8), tmp_path / "m.png")
    with pytest.raises(UserError, match="not pixels of mode 'RGB'"):
        read_mask(file)
