"""Load batches of images: their order, random streams and workers.

Any number of workers loads the same batches.
"""

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from bench.errors import UserError
from bench.loading.images import EvalImages, Images, Item, Key, TrainImages, require_batch
from bench.loading.loading import Loading

# Workers are copies of this process, which have imported everything; they never use its GPU.
START_METHOD = "fork" if sys.platform == "linux" else None
Stack = Tensor | list[Tensor]  # one tensor if all have the same size
Batch = tuple[Stack, Stack, list[str]]


class EpochSampler(Sampler[list[Key]]):
    """The full batches of an epoch, in an order that depends only on (seed, epoch).

    Set `epoch` and `start` (the first batch) before each pass. `places` are those of a batch whose
    images this process reads; None: all.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, places: Sequence[int] | None = None
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.places = range(batch_size) if places is None else places
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.num_images // self.batch_size - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches(self.epoch)[self.start :]:
            yield [batch[place] for place in self.places]

    def batches(self, epoch: int) -> list[list[Key]]:
        """List the keys of every batch of an epoch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        whole = order[: self.num_images // self.batch_size * self.batch_size]
        return [
            [(epoch, int(index)) for index in batch] for batch in whole.reshape(-1, self.batch_size)
        ]


def train_loader(
    images: TrainImages,
    batch_size: int,
    seed: int,
    loading: Loading,
    places: Sequence[int] | None = None,
) -> tuple["Loader", EpochSampler]:
    """Return a loader of full training batches and the sampler that sets their order.

    Args:
        places: of the images in a batch that are loaded; None: all.

    Raises:
        UserError: if there are fewer images than a batch.
    """
    require_batch(len(images), batch_size)
    sampler = EpochSampler(len(images), batch_size, seed, places)
    return Loader(images, sampler, loading), sampler


def eval_loader(
    images: EvalImages, batch_size: int, loading: Loading, indices: Sequence[int] | None = None
) -> "Loader":
    """Return a loader that yields every image once, in order, or those with the given indices."""
    keys = [(0, index) for index in (range(len(images)) if indices is None else indices)]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return Loader(images, batches, loading)


class Loader:
    """Batches of images, read by this process or by workers; the same either way."""

    def __init__(self, images: Images, batches: Any, loading: Loading) -> None:
        num_workers = loading.num_workers
        self.images = images
        self.reading = RawArray("q", 2 * num_workers)  # process id and image of each worker
        self.loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=num_workers,
            multiprocessing_context=START_METHOD if num_workers else None,
            prefetch_factor=loading.prefetch if num_workers else None,
            collate_fn=_collate,
            pin_memory=loading.pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=partial(_prepare_worker, self.reading),
            generator=torch.Generator(),  # else passes draw from the generator of dropout
        )

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches of images, targets and ids.

        Raises:
            UserError: naming a file that cannot be read.
        """
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    @contextmanager
    def guarded(self) -> Iterator["Loader"]:
        """Name the file that a worker died on; torch reports the death anywhere in the body.

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
        """Return a message with what the workers were reading when one of them died."""
        notes = dict(zip(self.reading[::2], self.reading[1::2], strict=True))
        dead = [int(pid) for pid in re.findall(r"\d+", message) if int(pid) in notes]
        files = []
        for pid in dead or list(notes):
            if notes[pid]:
                sample = self.images.samples[notes[pid] - 1]
                files.append(", ".join(map(str, sample.files)) or sample.id)
        at = f" while reading {' or '.join(files)}" if files else ""
        return (
            f"A loader worker died{at}: {message.splitlines()[0].rstrip('. ')}. "
            "Check the file; if memory ran out, use fewer --loader-workers."
        )


def _prepare_worker(reading: Any, worker: int) -> None:
    """Ignore signals, use one thread, and note what is read."""
    images = torch.utils.data.get_worker_info().dataset  # type: ignore[union-attr]
    assert isinstance(images, Images)
    images.reading = reading
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # clusters send them to every process
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
        UserError: if sizes differ.
    """
    if isinstance(images, Tensor):
        return images
    shapes = {(image.shape[-2], image.shape[-1]) for image in images}
    sizes = " and ".join(f"{h}x{w}" for h, w in sorted(shapes)[:3])
    raise UserError(
        f"The images of a batch have different sizes: {sizes} ({', '.join(ids[:3])}, …). "
        "Set recipe.size, or crop to one size in recipe.augment."
    )
