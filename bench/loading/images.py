"""Images for training and scoring: read, resized, augmented; the same in any process."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bench.datasets.base import Dataset, Pair, Sample
from bench.errors import UserError
from bench.loading.cache import Kept
from bench.loading.resize import resize_image, resize_target
from bench.loading.transforms import Augment
from bench.suite.evaluation import Evaluation
from bench.suite.recipe import Recipe
from bench.suite.schema import Side, Size, sized
from bench.text import plural

Key = tuple[int, int]  # (epoch, index), which pick the random stream
Item = tuple[Tensor, Tensor, str]


def limited(samples: Sequence[Sample], limit: int | float | None) -> list[Sample]:
    """Return a number or fraction of the samples, evenly spaced."""
    if limit is None:
        return list(samples)
    num = limit if isinstance(limit, int) else max(1, round(limit * len(samples)))
    if num >= len(samples):
        return list(samples)
    return [samples[i] for i in np.linspace(0, len(samples) - 1, num).round().astype(int)]


def require_batch(num_images: int, batch_size: int) -> None:
    """Check that there are enough training images for a batch.

    Raises:
        UserError: if there are fewer.
    """
    if num_images < batch_size:
        raise UserError(
            f"{plural(num_images, 'training image')} cannot fill a batch of {batch_size}; lower "
            "recipe.batch_size or raise limit."
        )


class Images(TorchDataset[Item | UserError]):
    """Images that are read, resized and augmented.

    A UserError is returned, not raised: workers garble the exceptions that they raise.
    """

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
        self.reading: Any = None  # the image each worker is reading, to name the one it died on

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

    def read(self, index: int) -> Item:
        """Return an item as it is in the first epoch.

        Raises:
            UserError: naming what cannot be read.
        """
        item = self[0, index]
        if isinstance(item, UserError):
            raise item
        return item

    def decode(self, index: int) -> Pair:
        """Read and resize a pair, which is the same in every epoch.

        Raises:
            UserError: naming what cannot be read.
        """
        image, target = self.dataset.checked(self.samples[index])
        size = sized(self.size, *target.shape)
        resized = resize_target(target, size) if self.resized_target else target
        return resize_image(image, size), resized

    def finish(self, pair: Pair, epoch: int, index: int) -> Pair:
        """Do what differs between epochs or takes little time."""
        return pair


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
        """Augment with the random stream of (seed, epoch, index)."""
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
        """Crop to the centre if that is the method; smaller images stay whole."""
        if self.crop is None:
            return pair
        image, target = pair
        height, width = target.shape
        top, left = max(0, height - self.crop[0]) // 2, max(0, width - self.crop[1]) // 2
        rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
        return image[rows, columns], target[rows, columns]


def eval_size(evaluation: Evaluation, recipe: Recipe) -> Size | Side | None:
    """Return the size that images are resized to; None to keep the stored size."""
    if evaluation.size == "recipe":
        return recipe.size
    return None if evaluation.size == "stored" else evaluation.size


def network_size(evaluation: Evaluation, recipe: Recipe) -> Size | None:
    """Return the (H, W) that the network sees in an evaluation; None if it may vary."""
    size = eval_size(evaluation, recipe)
    if evaluation.crop is None:
        return size if isinstance(size, tuple) else None
    if not isinstance(size, tuple):
        return None  # images may be smaller than the crop
    return min(size[0], evaluation.crop[0]), min(size[1], evaluation.crop[1])
