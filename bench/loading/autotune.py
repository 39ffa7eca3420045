"""Choose how many workers read images by a short measurement, and remember the choice."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import torch

from bench.errors import UserError
from bench.loading.images import Key, TrainImages
from bench.loading.loader import Batch, Loader
from bench.loading.loading import Loading
from bench.machine.cache_folder import cache_folder
from bench.machine.environment import num_cores
from bench.machine.files import read_json, write_json

MEASURE_S = 0.6  # per setting, after its first batch
STARVED = 2.0  # one process that reads must be this many times as fast as workers
ENOUGH = 1.1  # more workers must be this many times as fast
MOST_WORKERS = 16


def choose_loading(images: TrainImages, batch_size: int, device: torch.device) -> Loading:
    """Measure how fast training images are read, and choose as few workers as are fast enough.

    On the CPU the training process reads them itself: workers would take the cores that it trains
    on. The choice is remembered per machine, images and augmentation, so that cases that are
    compared load images in the same way.
    """
    place = [platform.node(), torch.version.cuda, str(device), num_cores(), batch_size]
    augment = images.augment.items if images.augment else ()
    what = [images.kept.where if images.kept else "none", str(images.size), augment]
    ids = [images.dataset.name, len(images), images.samples[0].id]
    key = hashlib.sha256(json.dumps([place, what, ids]).encode()).hexdigest()[:16]
    file = cache_folder() / "loading" / f"{key}.json"
    known = read_json(file)
    if isinstance(known, dict) and known.keys() == Loading().as_dict().keys():
        return Loading(**known)
    if device.type == "cuda":
        loading = _for_gpu(images, batch_size, device)
    else:
        loading = Loading(images_per_s=_rate(images, batch_size, Loading()))
    with suppress(UserError):  # a cache that cannot be written remembers nothing
        write_json(file, loading.as_dict(), sync=False)
    return loading


def _for_gpu(images: TrainImages, batch_size: int, device: torch.device) -> Loading:
    """Double the workers while that helps, then try pinned memory and a longer queue.

    There is at least one worker, unless that is far slower: the training process is busy with
    launching kernels.
    """

    def to_device(batch: Batch) -> None:
        for part in batch[:2]:
            for tensor in [part] if isinstance(part, torch.Tensor) else part:
                tensor.to(device, non_blocking=True)
        torch.cuda.synchronize(device)

    def measured(num_workers: int, prefetch: int, pin_memory: bool) -> Loading:
        loading = Loading(num_workers, prefetch, pin_memory)
        rate = _rate(images, batch_size, loading, to_device)
        return replace(loading, images_per_s=rate)

    alone, best = measured(0, 2, False), measured(1, 2, False)
    num_workers = 2
    while num_workers <= min(num_cores(), MOST_WORKERS):
        more = measured(num_workers, 2, False)
        if more.rate < ENOUGH * best.rate:
            break
        best, num_workers = more, 2 * num_workers
    if alone.rate > STARVED * best.rate:
        best = alone
    others = [measured(best.num_workers, prefetch, True) for prefetch in (2, 4)]
    return max(best, *others, key=lambda loading: loading.rate)


def _rate(
    images: TrainImages,
    batch_size: int,
    loading: Loading,
    use: Callable[[Batch], None] = lambda batch: None,
) -> float:
    """Return images per second, not counting the start of the workers."""
    size = min(batch_size, len(images))

    def batches() -> Iterator[list[Key]]:
        first = 0
        while True:
            yield [(0, (first + i) % len(images)) for i in range(size)]
            first += size

    with Loader(images, batches(), loading).guarded() as loader:
        start, num = 0.0, 0
        for batch in loader:
            use(batch)
            if start == 0.0:
                start = time.perf_counter()
                continue
            num += size
            if time.perf_counter() - start > MEASURE_S:
                break
    return num / (time.perf_counter() - start)
