"""Samples to batches: limits, order, random streams; the same with any number of workers."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from bench.data import Dataset, Sample
from bench.data.transforms import Augment, resize, resize_image
from bench.errors import UserError
from bench.recipe import Recipe
from bench.suite import Evaluation

Key = tuple[int, int]  # (epoch, index): what a random stream is named by
Item = tuple[Tensor, Tensor, str]
Stack = Tensor | list[Tensor]  # one tensor where all have one size
Batch = tuple[Stack, Stack, list[str]]


def limited(samples: Sequence[Sample], limit: int | float | None) -> list[Sample]:
    """Return a number or fraction of the samples, spread evenly over them."""
    if limit is None:
        return list(samples)
    num = limit if isinstance(limit, int) else max(1, round(limit * len(samples)))
    if num >= len(samples):
        return list(samples)
    return [samples[i] for i in np.linspace(0, len(samples) - 1, num).round().astype(int)]


class Images(TorchDataset[Item | UserError]):
    """Reads, resizes and augments; a fault is returned, for workers garble what they raise."""

    def __init__(self, dataset: Dataset, samples: Sequence[Sample]) -> None:
        self.dataset = dataset
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item | UserError:
        """Return image (3, H, W) uint8, target (H, W) uint8 and id."""
        epoch, index = key
        sample = self.samples[index]
        try:
            image, target = self.prepare(sample, epoch, index)
        except UserError as error:
            return error
        image = np.require(image.transpose(2, 0, 1), requirements=["C", "W"])
        target = np.require(target, requirements=["C", "W"])
        return torch.from_numpy(image), torch.from_numpy(target), sample.id

    def prepare(self, sample: Sample, epoch: int, index: int) -> Any:
        """Return image (H, W, 3) and target (h, w) as the network and the scores take them."""
        raise NotImplementedError


class TrainImages(Images):
    """Images as a recipe trains on them."""

    def __init__(
        self, dataset: Dataset, samples: Sequence[Sample], recipe: Recipe, seed: int
    ) -> None:
        super().__init__(dataset, samples)
        self.size, self.seed = recipe.size, seed
        self.augment = Augment(recipe.augment) if recipe.augment else None

    def prepare(self, sample: Sample, epoch: int, index: int) -> Any:
        """Resize both, then augment."""
        pair = resize(self.dataset.checked(sample), self.size)
        return self.augment(pair, (self.seed, epoch, index)) if self.augment else pair


class EvalImages(Images):
    """Images as an evaluation scores them."""

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        size: tuple[int, int] | None,
        score_at: str,
    ) -> None:
        super().__init__(dataset, samples)
        self.size, self.score_at = size, score_at

    def prepare(self, sample: Sample, epoch: int, index: int) -> Any:
        """Resize the image; the target only where the input's resolution is scored."""
        image, target = self.dataset.checked(sample)
        if self.score_at == "input":
            return resize((image, target), self.size)
        return (resize_image(image, self.size) if self.size else image), target


class EpochSampler(Sampler[list[Key]]):
    """Whole batches of an epoch in an order that is a function of (seed, epoch).

    Set `epoch` and `start` (the batch to begin with) before each pass.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.num_images // self.batch_size - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_images)
        for i in range(self.start, self.num_images // self.batch_size):
            batch = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch]


def train_loader(
    images: TrainImages, batch_size: int, seed: int, num_workers: int, pin_memory: bool
) -> tuple[DataLoader[Any], EpochSampler]:
    """Return a loader of whole training batches and the sampler that steers it.

    Raises:
        UserError: where there are fewer images than a batch.
    """
    if len(images) < batch_size:
        raise UserError(
            f"{len(images)} training images are fewer than a batch of {batch_size}; "
            "lower recipe.batch_size or raise limit."
        )
    sampler = EpochSampler(len(images), batch_size, seed)
    return _loader(images, sampler, num_workers, pin_memory), sampler


def eval_loader(
    images: EvalImages, batch_size: int, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Return a loader that gives every image once, in order."""
    keys = [(0, index) for index in range(len(images))]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return _loader(images, batches, num_workers, pin_memory)


def eval_size(evaluation: Evaluation, recipe: Recipe) -> tuple[int, int] | None:
    """Return the (H, W) that images are resized to; None for as stored."""
    if evaluation.size == "recipe":
        return recipe.size
    return None if evaluation.size == "stored" else evaluation.size


def _loader(images: Images, batches: Any, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # else each pass draws from the stream that dropout uses
    )


def _prepare_worker(worker: int) -> None:
    """Leave Ctrl-C to the main process, and the cores to each other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _collate(items: list[Item | UserError]) -> Batch | UserError:
    images, targets, ids = [], [], []
    for item in items:
        if isinstance(item, UserError):
            return item
        images.append(item[0])
        targets.append(item[1])
        ids.append(item[2])
    return _stack(images), _stack(targets), ids


def _stack(images: list[Tensor]) -> Stack:
    return torch.stack(images) if len({image.shape for image in images}) == 1 else images


def require_one_size(images: Stack, ids: list[str]) -> Tensor:
    """Return the images or targets of a batch as one tensor.

    Raises:
        UserError: where sizes differ, with what to do.
    """
    if isinstance(images, Tensor):
        return images
    shapes = {(image.shape[-2], image.shape[-1]) for image in images}
    sizes = " and ".join(f"{h}x{w}" for h, w in sorted(shapes)[:3])
    raise UserError(
        f"A batch has images of {sizes} ({', '.join(ids[:3])}, …): give recipe.size, or crop "
        "to one size in recipe.augment."
    )
