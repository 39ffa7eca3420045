import numpy as np
import pytest
import torch
from torch import nn

from bench.models.geometry import Geometry, declared

VALID = Geometry(16, 188, remainder=12, margin=92)


@pytest.mark.parametrize(
    ("geometry", "size", "padded"),
    [
        (Geometry(1, 1), 37, 37),
        (Geometry(8, 8), 37, 40),
        (Geometry(8, 8), 40, 40),
        (Geometry(16, 128), 60, 128),
        (Geometry(1, 16), 5, 16),
        (VALID, 388, 572),  # the paper's
        (VALID, 389, 588),
        (VALID, 1, 188),
        (Geometry(16, 20, remainder=12), 20, 28),
    ],
)
def test_padded_sizes(geometry: Geometry, size: int, padded: int) -> None:
    assert geometry.padded(size) == padded
    assert geometry.logits_size(padded) * geometry.stride >= size


def test_zeros_are_padded_below_and_to_the_right() -> None:
    image = torch.rand(1, 3, 5, 9)
    fitted = Geometry(8, 8).fit(image)
    assert fitted.shape == (1, 3, 8, 16)
    assert torch.equal(fitted[..., :5, :9], image)
    assert fitted[..., 5:, :].abs().sum() == fitted[..., 9:].abs().sum() == 0
    whole = torch.rand(1, 3, 8, 16)
    assert Geometry(8, 8).fit(whole) is whole


@pytest.mark.parametrize(("height", "width"), [(300, 389), (93, 60), (2, 1)])
def test_margins_are_mirrored_as_numpy_mirrors(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    fitted = VALID.fit(image)
    below = VALID.padded(height) - height - 92
    right = VALID.padded(width) - width - 92
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (92, below), (92, right)), "reflect")
    np.testing.assert_array_equal(fitted.numpy(), expected)


def test_coarse_logits_meet_the_middle_of_their_cells() -> None:
    geometry = Geometry(8, 8, stride=8)
    target = torch.full((1, 20, 16), 255, dtype=torch.long)
    for row in range(3):
        for column in range(2):
            if 8 * row + 4 < 20:
                target[0, 8 * row + 4, 8 * column + 4] = 10 * row + column
    reduced = geometry.reduced(target)
    assert reduced.tolist() == [[[0, 1], [10, 11], [255, 255]]]  # the third row's is outside
    logits = torch.rand(1, 4, geometry.logits_size(24), geometry.logits_size(16))
    assert geometry.cut(logits, 20, 16, coarse=True).shape[-2:] == reduced.shape[-2:]
    assert Geometry(8, 8).reduced(target) is target


def test_coarse_logits_are_enlarged_before_they_are_cut() -> None:
    ramp = torch.arange(13.0).expand(1, 1, 2, 13)
    enlarged = Geometry(8, 8, stride=8).cut(ramp, 16, 100)
    assert enlarged.shape == (1, 1, 16, 100)
    # the centre of cell i is pixel 8 i + 3.5
    torch.testing.assert_close(enlarged[0, 0, 0, 4:96], (torch.arange(4.0, 96) - 3.5) / 8)


def test_what_networks_declare() -> None:
    net = nn.Identity()
    assert declared(net) is None
    net.input_multiple = 8
    assert declared(net) == Geometry(8, 8)
    net.input_minimum, net.input_remainder, net.output_margin, net.output_stride = 16, 4, 2, 8
    assert declared(net) == Geometry(8, 16, 4, 2, 8)
