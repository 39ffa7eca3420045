"""Samples to batches: limits, order, random streams; the same with any number of workers."""

import hashlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from bench.data import Dataset, Pair, Sample
from bench.data.cache import Cache, Kept, keep
from bench.data.loading import Loading
from bench.data.transforms import Augment, resize_image, resize_target
from bench.errors import UserError
from bench.recipe import Recipe
from bench.schema import Side, Size, size_text, sized
from bench.suite import Evaluation

Key = tuple[int, int]  # (epoch, index): what a random stream is named by
Item = tuple[Tensor, Tensor, str]
Stack = Tensor | list[Tensor]  # one tensor where all have one size
Batch = tuple[Stack, Stack, list[str]]
FEW_IMAGES = 64  # decoded faster than workers start
MOST_DECODERS = 16


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    def __init__(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        size: Size | Side | None,
        resized_target: bool,
    ) -> None:
        self.dataset = dataset
        self.samples = samples
        self.size, self.resized_target = size, resized_target
        self.kept: Kept | None = None
        self.reading: Any = None  # what each worker is at, to name the file that ended it

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item | UserError:
        """Return image (3, H, W) uint8, target (h, w) uint8 and id."""
        epoch, index = key
        _note(self.reading, index + 1)
        try:
            pair = self.decode(index) if self.kept is None else self.kept[index]
            image, target = self.finish(pair, epoch, index)
        except UserError as error:
            return error
        finally:
            _note(self.reading, 0)
        image = np.require(image.transpose(2, 0, 1), requirements=["C", "W"])
        target = np.require(target, requirements=["C", "W"])
        return torch.from_numpy(image), torch.from_numpy(target), self.samples[index].id

    def decode(self, index: int) -> Pair:
        """Read and resize a pair: the same in every epoch.

        Raises:
            UserError: naming what cannot be read.
        """
        image, target = self.dataset.checked(self.samples[index])
        size = sized(self.size, *target.shape)
        resized = resize_target(target, size) if self.resized_target else target
        return resize_image(image, size), resized

    def finish(self, pair: Pair, epoch: int, index: int) -> Pair:
        """Do what differs between epochs, or is soon done."""
        return pair

    def keep_decoded(self, cache: Cache, split: str, times_read: int) -> None:
        """Decode everything once where the cache has room, or find it there.

        Args:
            times_read: how often each image will be read; `auto` keeps none that is read once.

        Raises:
            UserError: naming what cannot be read, or why the cache asked for cannot be.
        """
        size, scored = size_text(self.size), "resized" if self.resized_target else "as stored"
        parts = [self.dataset.name, self.dataset.fingerprint(split), size, scored]
        text = "\n".join([*parts, *(sample.id for sample in self.samples)])
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        about = f"{self.dataset.name} {split}, {len(self)} images, {size}"

        def decode_all() -> Iterator[Pair]:
            keys = [[(0, index)] for index in range(len(self))]
            plain = Images(self.dataset, self.samples, self.size, self.resized_target)
            workers = min(num_cores(), MOST_DECODERS) if len(self) >= FEW_IMAGES else 0
            with Loader(plain, keys, Loading(workers)).guarded() as loader:
                for images, targets, _ in loader:
                    yield images[0].permute(1, 2, 0).numpy(), targets[0].numpy()

        self.kept = keep(cache, key, about, len(self), self.decode, decode_all, times_read)


def _note(reading: Any, value: int) -> None:
    worker = torch.utils.data.get_worker_info()
    if reading is not None and worker is not None:
        reading[2 * worker.id], reading[2 * worker.id + 1] = os.getpid(), value


class TrainImages(Images):
    """Images as a recipe trains on them."""

    def __init__(
        self, dataset: Dataset, samples: Sequence[Sample], recipe: Recipe, seed: int
    ) -> None:
        super().__init__(dataset, samples, recipe.size, resized_target=True)
        self.seed = seed
        self.augment = Augment(recipe.augment) if recipe.augment else None

    def finish(self, pair: Pair, epoch: int, index: int) -> Pair:
        """Augment by the random stream of (seed, epoch, index)."""
        return self.augment(pair, (self.seed, epoch, index)) if self.augment else pair


class EvalImages(Images):
    """Images as an evaluation scores them."""

    def __init__(
        self, dataset: Dataset, samples: Sequence[Sample], evaluation: Evaluation, recipe: Recipe
    ) -> None:
        size = eval_size(evaluation, recipe)
        at_input = evaluation.score_at == "input"
        super().__init__(dataset, samples, size, resized_target=at_input)
        self.crop = evaluation.crop if evaluation.method == "centre_crop" else None

    def finish(self, pair: Pair, epoch: int, index: int) -> Pair:
        """Cut out the centre where that is the method; a smaller image stays whole."""
        if self.crop is None:
            return pair
        image, target = pair
        height, width = target.shape
        top, left = max(0, height - self.crop[0]) // 2, max(0, width - self.crop[1]) // 2
        rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
        return image[rows, columns], target[rows, columns]


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
    images: TrainImages, batch_size: int, seed: int, loading: Loading
) -> tuple["Loader", EpochSampler]:
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
    return Loader(images, sampler, loading), sampler


def eval_loader(images: EvalImages, batch_size: int, loading: Loading) -> "Loader":
    """Return a loader that gives every image once, in order."""
    keys = [(0, index) for index in range(len(images))]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return Loader(images, batches, loading)


def eval_size(evaluation: Evaluation, recipe: Recipe) -> Size | Side | None:
    """Return the size that images get; None for as stored."""
    if evaluation.size == "recipe":
        return recipe.size
    return None if evaluation.size == "stored" else evaluation.size


class Loader:
    """Batches of images, fetched here or by workers; the same either way."""

    def __init__(self, images: Images, batches: Any, loading: Loading) -> None:
        num_workers = loading.num_workers
        if num_workers:
            images.reading = RawArray("q", 2 * num_workers)
        self.images = images
        self.loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=num_workers,
            prefetch_factor=loading.prefetch if num_workers else None,
            collate_fn=_collate,
            pin_memory=loading.pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # else each pass draws from the stream that dropout uses
        )

    def __iter__(self) -> Iterator[Batch]:
        """Give batches of images, targets and ids.

        Raises:
            UserError: naming a file that cannot be read.
        """
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    @contextmanager
    def guarded(self) -> Iterator["Loader"]:
        """Name the file that ended a worker; torch tells of its end wherever the body is then.

        Raises:
            UserError: naming what the worker was reading.
        """
        try:
            yield self
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(self._why(str(error))) from error

    def _why(self, message: str) -> str:
        """Name what the workers were reading when one of them ended."""
        notes = dict(zip(self.images.reading[::2], self.images.reading[1::2], strict=True))
        ended = [int(pid) for pid in re.findall(r"\d+", message) if int(pid) in notes]
        files = []
        for pid in ended or list(notes):
            if notes[pid]:
                sample = self.images.samples[notes[pid] - 1]
                files.append(", ".join(map(str, sample.files)) or sample.id)
        at = f" while reading {' or '.join(files)}" if files else ""
        return (
            f"A process that reads images ended{at}: {message.splitlines()[0].rstrip('. ')}. "
            "Look at the file, "
            "or, where memory ran out, use fewer --loader-workers."
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
