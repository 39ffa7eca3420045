"""Predictions to pixel counts, on the device."""

import torch
from torch import Tensor


def count_pixels(pred: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels by (true class, predicted class) for each image.

    Args:
        pred: class indices (N, H, W), any integer dtype.
        target: (N, H, W) uint8, checked when decoded: 0..K-1, or 255 for void.

    Returns:
        (N, K+1, K) int64 on the device of `pred`; the last row is void.
    """
    num_images = len(target)
    row = target.long().clamp(max=num_classes)  # void goes to an extra row: no gathering
    image = torch.arange(num_images, device=target.device).view(-1, 1, 1)
    cell = (image * (num_classes + 1) + row) * num_classes + pred.long()
    size = num_images * (num_classes + 1) * num_classes
    counts = torch.bincount(cell.flatten(), minlength=size)
    return counts.view(num_images, num_classes + 1, num_classes)


def per_class(counts: Tensor) -> Tensor:
    """Reduce (N, K+1, K) counts to (N, 4, K): truth, prediction, intersection, on void."""
    valid = counts[:, :-1]
    hit = valid.diagonal(dim1=1, dim2=2)
    return torch.stack([valid.sum(2), valid.sum(1), hit, counts[:, -1]], dim=1)
