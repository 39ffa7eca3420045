"""Inference to pixel counts: one pass, counted on the device."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.counts import count_pixels, per_class
from bench.data.loader import Stack
from bench.device import Precision, autocast
from bench.errors import UserError
from bench.losses import PixelLoss


@dataclass(frozen=True)
class Counts:
    """What an evaluation counted.

    per_image: (N, 4, K) uint32: truth, prediction, intersection, prediction on void.
    confusion: (K, K) int64 over the split; rows are truth.
    loss: mean over the valid pixels of the split.
    """

    ids: tuple[str, ...]
    per_image: NDArray[np.uint32]
    confusion: NDArray[np.int64]
    loss: float
    seconds: float


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Any,
    loss_fn: PixelLoss,
    num_classes: int,
    device: torch.device,
    precision: Precision,
    beat: Callable[[], None],
) -> Counts:
    """Score every image once, at the resolution of its target.

    Args:
        batches: images (N, 3, H, W) uint8, targets (N, h, w) uint8 and ids, or lists of images
            and targets where sizes differ; logits are resized bilinearly to (h, w).
    """
    start = time.perf_counter()
    model.eval()
    ids: list[str] = []
    rows: list[Tensor] = []
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    totals: list[Tensor] = []
    weights: list[Tensor] = []
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        images, targets, batch_ids = batch
        for image, target in _groups(images, targets):
            image = image.to(device, non_blocking=True)
            target = target.to(device, non_blocking=True)
            size = (target.shape[1], target.shape[2])
            logits = predict(model, image, size, device, precision)
            counts = count_pixels(logits.max(1).indices, target, num_classes)
            rows.append(per_class(counts))
            confusion += counts[:, :-1].sum(0)
            totals.append(loss_fn.total(logits, target.long()))
            weights.append(loss_fn.weight(target.long()))
        ids += batch_ids
        beat()
    total = float(torch.stack(totals).cpu().double().sum())
    weight = float(torch.stack(weights).cpu().double().sum())
    return Counts(
        ids=tuple(ids),
        per_image=torch.cat(rows).cpu().numpy().astype(np.uint32),
        confusion=confusion.cpu().numpy(),
        loss=total / weight if weight > 0 else float("nan"),
        seconds=time.perf_counter() - start,
    )


@torch.inference_mode()
def predict(
    model: nn.Module,
    image: Tensor,
    size: tuple[int, int],
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Return float logits (N, K, H, W) of images on the device, resized bilinearly to `size`."""
    with autocast(device, precision):
        logits: Tensor = model(image)
    logits = logits.float()
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits


def _groups(images: Stack, targets: Stack) -> list[tuple[Tensor, Tensor]]:
    """Take a batch of one size whole; images of several sizes pass one by one."""
    if isinstance(images, Tensor) and isinstance(targets, Tensor):
        return [(images, targets)]
    return [(i[None], t[None]) for i, t in zip(images, targets, strict=True)]
