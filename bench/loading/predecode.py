"""Decode the images of a case once, with as many processes as there are cores."""

import hashlib
from collections.abc import Callable, Iterator

import cv2
import PIL

from bench.datasets.base import Pair
from bench.loading.cache import keep
from bench.loading.images import Images
from bench.loading.loader import Loader
from bench.loading.loading import Loading
from bench.machine.environment import num_cores
from bench.suite.schema import Cache, size_text

MADE_BY = ("1", PIL.__version__, cv2.__version__)  # version of the layout, then the decoders
FEW_IMAGES = 64  # decoded faster than workers start
MOST_DECODERS = 16


def keep_decoded(
    images: Images,
    cache: Cache,
    split: str,
    times_read: int,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Decode everything once if the cache has room, or open what it already holds.

    Args:
        times_read: how often each image will be read; `auto` keeps nothing that is read once.
        beat: called after each image and while another process decodes the same images.

    Raises:
        UserError: naming a file that cannot be read, or saying why the cache cannot be used.
    """
    size, scored = size_text(images.size), "resized" if images.resized_target else "as stored"
    kind = f"{type(images.dataset).__module__}.{type(images.dataset).__qualname__}"
    parts = [*MADE_BY, kind, images.dataset.fingerprint(split), size, scored]
    text = "\n".join([*parts, *(sample.id for sample in images.samples)])
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    about = f"{images.dataset.name} {split}, {len(images)} images, {size}"

    def decode_all() -> Iterator[Pair]:
        keys = [[(0, index)] for index in range(len(images))]
        plain = Images(images.dataset, images.samples, images.size, images.resized_target)
        workers = min(num_cores(), MOST_DECODERS) if len(images) >= FEW_IMAGES else 0
        with Loader(plain, keys, Loading(workers)).guarded() as loader:
            for image, target, _ in loader:
                beat()
                # Copies: workers send shared memory, with one open file per tensor.
                yield image[0].permute(1, 2, 0).numpy().copy(), target[0].numpy().copy()

    images.kept = keep(cache, key, about, len(images), images.decode, decode_all, times_read, beat)
