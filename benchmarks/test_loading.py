"""Measure how fast training images load: from files, from the cache, and with torchvision.

    python -m pytest benchmarks

All three do the same work, one image at a time in one process: decode, scale by 0.5 to 2, crop
with padding, flip, normalise. Their rounds alternate, so that other load on the machine affects
all of them alike. Needs the real images in ../shared.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torchvision import tv_tensors
from torchvision.transforms import v2

from bench.datasets.registry import open_dataset
from bench.loading.images import TrainImages
from bench.loading.predecode import keep_decoded
from bench.suite.recipe import Recipe

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
CROP = 320
NUM_IMAGES = 64
ROUNDS = 9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = Recipe.model_validate(
    {
        "epochs": 1,
        "augment": [
            {"RandomScale": {"scale_limit": [-0.5, 1.0], "p": 1}},
            {"PadIfNeeded": {"min_height": CROP, "min_width": CROP}},
            {"RandomCrop": {"height": CROP, "width": CROP}},
            {"HorizontalFlip": {"p": 0.5}},
        ],
    }
)
Arm = Callable[[int], object]


def ours(images: TrainImages) -> Arm:
    mean = 255 * torch.tensor(MEAN).view(3, 1, 1)
    std = 255 * torch.tensor(STD).view(3, 1, 1)

    def one(index: int) -> object:
        image, target, _ = images[0, index % len(images)]
        return (image.float() - mean) / std, target

    return one


def torchvisions(images: TrainImages) -> Arm:
    transform = v2.Compose(
        [
            v2.ScaleJitter((1, 1), (0.5, 2.0)),  # its target size is set per image below
            v2.RandomCrop(CROP, pad_if_needed=True, fill={Image.Image: 0, tv_tensors.Mask: 255}),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def one(index: int) -> object:
        sample = images.samples[index % len(images)]
        assert sample.image is not None
        assert sample.mask is not None
        image = Image.open(sample.image).convert("RGB")
        mask = tv_tensors.Mask(np.array(Image.open(sample.mask))[None])
        transform.transforms[0].target_size = (image.height, image.width)
        return transform(image, mask)

    return one


@pytest.fixture(params=["camvid", "voc2012"])
def arms(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Arm]:
    name = request.param
    root = SHARED / {"camvid": "camvid", "voc2012": "VOCdevkit"}[name]
    if not root.is_dir():
        pytest.skip("needs the real images of ../shared, which are not here")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    dataset = open_dataset(name, name, None, {"partial": True}, {name: root})
    samples = dataset.samples("train")[:NUM_IMAGES]
    plain = TrainImages(dataset, samples, RECIPE, seed=0)
    cached = TrainImages(dataset, samples, RECIPE, seed=0)
    keep_decoded(cached, "disk", "train", 2)
    return {"plain": ours(plain), "cached": ours(cached), "torchvision": torchvisions(plain)}


def test_images_per_second(arms: dict[str, Arm], benchmark: BenchmarkFixture) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in loader workers
    seconds: dict[str, list[float]] = {name: [] for name in arms}

    def rounds() -> None:
        for _ in range(ROUNDS):
            for name, arm in arms.items():
                start = time.perf_counter()
                for index in range(NUM_IMAGES):
                    arm(index)
                seconds[name].append(time.perf_counter() - start)

    try:
        rounds()  # warms up
        for times in seconds.values():
            times.clear()
        benchmark.pedantic(rounds, rounds=1)
    finally:
        torch.set_num_threads(threads)
    rates = {name: NUM_IMAGES / statistics.median(times) for name, times in seconds.items()}
    ratio = statistics.median(
        other / ours for ours, other in zip(seconds["cached"], seconds["torchvision"], strict=True)
    )
    benchmark.extra_info |= {name: round(rate, 1) for name, rate in rates.items()}
    benchmark.extra_info["cached / torchvision"] = round(ratio, 2)
    print({**benchmark.extra_info})
    assert ratio >= 3
