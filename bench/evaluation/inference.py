"""Run a model on a split and count pixels: one pass, counted on the device."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.evaluation.confusion import count_pixels, per_class
from bench.evaluation.setup import Setup
from bench.loading.loader import Batch, Stack
from bench.machine.device import autocast
from bench.machine.world import World
from bench.suite.evaluation import Evaluation
from bench.suite.schema import Size


@dataclass(frozen=True)
class Counts:
    """What an evaluation counted.

    per_image: (N, 4, K) uint32: truth, prediction, intersection, prediction on void.
    confusion: (K, K) int64 over the split; rows are truth.
    loss: the recipe's loss as one mean over the split; NaN if no pixel is valid.
    batch_size: images per forward pass.
    """

    ids: tuple[str, ...]
    per_image: NDArray[np.uint32]
    confusion: NDArray[np.int64]
    loss: float
    seconds: float
    batch_size: int


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], evaluation: Evaluation, setup: Setup
) -> Counts:
    """Count the predictions on every image, at the resolution of its target.

    Args:
        batches: of this process's share of the images (`World.share`): images (N, 3, H, W) uint8,
            targets (N, h, w) uint8 and ids, or lists of images and targets if sizes differ; logits
            are resized bilinearly to (h, w).

    Returns:
        The counts of the images of all processes, in order.
    """
    start = time.perf_counter()
    device, num_classes, loss_fn = setup.device, setup.num_classes, setup.loss_fn
    model.eval()
    ids: list[str] = []
    rows: list[Tensor] = []
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    totals: list[Tensor] = []
    weights: list[Tensor] = []
    batch_size = 0
    for images, targets, batch_ids in batches:
        for image, target in _groups(images, targets):
            batch_size = max(batch_size, len(image))
            image = image.to(device, non_blocking=True)
            target = target.to(device, non_blocking=True)
            size = (target.shape[1], target.shape[2])
            logits = predict(model, image, size, evaluation, setup)
            counts = count_pixels(logits.max(1).indices, target, num_classes)
            rows.append(per_class(counts))
            confusion += counts[:, :-1].sum(0)
            totals.append(loss_fn.totals(logits, target.long()))
            weights.append(loss_fn.weights(target.long()))
        ids += batch_ids
        setup.beat()
    nothing = torch.zeros(0, 4, num_classes, dtype=torch.int64, device=device)
    part = _Part(
        ids=ids,
        per_image=torch.cat(rows or [nothing]).cpu().numpy().astype(np.uint32),
        confusion=confusion.cpu().numpy(),
        total=torch.stack(totals).cpu().double().sum(0) if totals else 0,
        weight=torch.stack(weights).cpu().double().sum(0) if weights else 0,
        batch_size=batch_size,
    )
    return _whole(setup.world.gather(part), start)


@dataclass(frozen=True)
class _Part:
    """What one process counted; total and weight are (terms,), or 0 if it had no image."""

    ids: list[str]
    per_image: NDArray[np.uint32]
    confusion: NDArray[np.int64]
    total: Tensor | Literal[0]
    weight: Tensor | Literal[0]
    batch_size: int


def _whole(parts: list[_Part], start: float) -> Counts:
    """Put the images of all processes into their order, and add up the rest."""
    num = sum(len(part.ids) for part in parts)
    ids = [""] * num
    per_image = np.empty((num, *parts[0].per_image.shape[1:]), np.uint32)
    for rank, part in enumerate(parts):
        mine = World(rank, len(parts)).share(num)
        per_image[mine] = part.per_image
        for index, name in zip(mine, part.ids, strict=True):
            ids[index] = name
    total, weight = (sum(getattr(part, name) for part in parts) for name in ("total", "weight"))
    assert isinstance(total, Tensor)
    assert isinstance(weight, Tensor)
    return Counts(
        ids=tuple(ids),
        per_image=per_image,
        confusion=np.sum([part.confusion for part in parts], 0),
        loss=float((total / weight).sum()),
        seconds=time.perf_counter() - start,
        batch_size=max(part.batch_size for part in parts),
    )


@torch.inference_mode()
def predict(
    model: nn.Module, image: Tensor, size: Size, evaluation: Evaluation, setup: Setup
) -> Tensor:
    """Return float logits (N, K, h, w) of images (N, 3, H, W) uint8, resized bilinearly to `size`.

    If there are several views of an image (mirrored, or at other scales), their probabilities are
    averaged, and the result is the logarithm of the mean.
    """
    network_size = (image.shape[-2], image.shape[-1])
    mean: Tensor | None = None
    mirrors = (False, True) if evaluation.flip else (False,)
    views = [(s, mirrored) for s in evaluation.scales for mirrored in mirrors]
    for scale, mirrored in views:
        height, width = (max(1, round(side * scale)) for side in network_size)
        view = _resized(image, (height, width))
        if mirrored:
            view = view.flip(-1)
        logits = _logits(model, view, evaluation, setup)
        if mirrored:
            logits = logits.flip(-1)
        logits = _resized(logits, size)
        if len(views) == 1:
            return logits
        share = logits.softmax(1) / len(views)
        mean = share if mean is None else mean + share
    assert mean is not None
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


def _resized(x: Tensor, size: Size) -> Tensor:
    """Resize (N, C, H, W) bilinearly, as float; return it unchanged if it has that size."""
    if (x.shape[-2], x.shape[-1]) == tuple(size):
        return x
    return F.interpolate(x.float(), size, mode="bilinear", align_corners=False)


def _logits(model: nn.Module, image: Tensor, evaluation: Evaluation, setup: Setup) -> Tensor:
    """Return float logits of the whole image, or averaged over sliding windows."""
    if evaluation.method != "sliding":
        return forward(model, image, setup)
    assert evaluation.crop is not None
    height, width = image.shape[-2:]
    total: Tensor | None = None
    num = image.new_zeros((1, 1, height, width), dtype=torch.float32)
    for top in window_starts(height, evaluation.crop[0], evaluation.window_stride[0]):
        for left in window_starts(width, evaluation.crop[1], evaluation.window_stride[1]):
            rows = slice(top, top + evaluation.crop[0])
            columns = slice(left, left + evaluation.crop[1])
            logits = forward(model, image[..., rows, columns], setup)
            if total is None:
                total = logits.new_zeros((len(image), logits.shape[1], height, width))
            total[..., rows, columns] += logits
            num[..., rows, columns] += 1
    assert total is not None
    return total / num


def window_starts(length: int, window: int, step: int) -> list[int]:
    """Return where windows start to cover a side; the last one ends at its end."""
    last = max(0, length - window)
    return [*range(0, last, step), last]


def forward(model: nn.Module, image: Tensor, setup: Setup) -> Tensor:
    """Return float logits (N, K, H, W) of images (N, 3, H, W) uint8."""
    with autocast(setup.device, setup.numerics.precision):
        logits: Tensor = model(image)
    return logits.float()


def _groups(images: Stack, targets: Stack) -> list[tuple[Tensor, Tensor]]:
    """Return a batch whole if its images have one size, else image by image."""
    if isinstance(images, Tensor) and isinstance(targets, Tensor):
        return [(images, targets)]
    return [(i[None], t[None]) for i, t in zip(images, targets, strict=True)]
