"""Count the pixels of predictions, on the device."""

import torch
from torch import Tensor


def count_pixels(pred: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels by (true class, predicted class), per image.

    Args:
        pred: class indices (N, H, W), any integer dtype.
        target: (N, H, W), any integer dtype, checked when decoded: 0..K-1, or 255 for void.

    Returns:
        (N, K+1, K) int64 on the device of `pred`; the last row is void.
    """
    num_images = len(target)
    row = target.long().clamp(max=num_classes)  # void goes to an extra row: no boolean index
    image = torch.arange(num_images, device=target.device).view(-1, 1, 1)
    cell = (image * (num_classes + 1) + row) * num_classes + pred.long()
    counts = torch.zeros(
        num_images * (num_classes + 1) * num_classes, dtype=torch.int64, device=target.device
    )
    one = torch.ones((), dtype=torch.int64, device=target.device)
    counts.index_add_(0, cell.flatten(), one.expand(cell.numel()))  # bincount waits for the device
    return counts.view(num_images, num_classes + 1, num_classes)


def per_class(counts: Tensor) -> Tensor:
    """Reduce (N, K+1, K) counts to (N, 4, K): truth, prediction, intersection, on void."""
    valid = counts[:, :-1]
    hit = valid.diagonal(dim1=1, dim2=2)
    return torch.stack([valid.sum(2), valid.sum(1), hit, counts[:, -1]], dim=1)
