import torch

from bench.evaluation.confusion import count_pixels, per_class


def test_by_hand() -> None:
    target = torch.tensor([[[0, 0, 1], [1, 255, 2]]], dtype=torch.uint8)
    pred = torch.tensor([[[0, 1, 1], [0, 2, 2]]])
    counts = count_pixels(pred, target, 3)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]]
    assert per_class(counts).tolist() == [[[2, 2, 1], [2, 2, 1], [1, 1, 1], [0, 0, 1]]]


def test_images_stay_apart() -> None:
    target = torch.tensor([[[0]], [[255]]], dtype=torch.uint8)
    counts = per_class(count_pixels(torch.tensor([[[1]], [[1]]]), target, 2))
    assert counts.tolist() == [[[1, 0], [0, 1], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0], [0, 1]]]


def test_the_target_is_left_alone() -> None:
    target = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    count_pixels(torch.zeros(1, 2, 2, dtype=torch.long), target, 2)
    assert (target == 255).all()
