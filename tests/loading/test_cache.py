"""Images are decoded once; cached images are complete, up to date and limited in size."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import ROOT
from fixtures import make_camvid

from bench.datasets.base import Dataset, Pair, Sample
from bench.datasets.camvid import CamVid
from bench.datasets.registry import open_dataset
from bench.errors import UserError
from bench.loading import cache as module
from bench.loading.cache import clear_cache, entries, keep
from bench.loading.images import EvalImages, TrainImages
from bench.loading.loader import train_loader
from bench.loading.loading import Loading
from bench.loading.predecode import keep_decoded
from bench.machine import lease
from bench.machine.files import CannotWrite
from bench.suite.evaluation import Evaluation
from bench.suite.recipe import Recipe

RECIPE = Recipe.model_validate(
    {"epochs": 2, "size": {"longest": 8}, "augment": ["HorizontalFlip", "GaussNoise"]}
)
GIGABYTE = 10**9


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


class Counted(CamVid):
    """CamVid that counts decoded images."""

    num_decoded = 0

    def read(self, sample: Sample) -> Pair:
        type(self).num_decoded += 1
        return super().read(sample)


@pytest.fixture
def camvid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(Counted, "num_decoded", 0)
    return Counted(make_camvid(tmp_path / "camvid"), Counted.Options(partial=True))


def train_images(dataset: Dataset, cache: str | None) -> TrainImages:
    images = TrainImages(dataset, dataset.samples("train"), RECIPE, seed=1)
    if cache is not None:
        keep_decoded(images, cache, "train", times_read=2)
    return images


def passes(images: TrainImages, num_workers: int = 0) -> list[list[torch.Tensor]]:
    loader, sampler = train_loader(images, 1, 0, Loading(num_workers))
    found = []
    for sampler.epoch in range(2):
        found.append([torch.cat([i.flatten(), t.flatten()]) for i, t, _ in loader])
    return found


@pytest.mark.parametrize("cache", ["disk", "ram", "auto"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_cached_or_not_is_the_same(camvid: Dataset, cache: str, num_workers: int) -> None:
    plain = passes(train_images(camvid, None))
    kept = passes(train_images(camvid, cache), num_workers)
    for one, other in zip(plain, kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_nothing_is_decoded_twice(camvid: Dataset) -> None:
    images = train_images(camvid, "disk")
    tried = Counted.num_decoded - 3  # to estimate the space, then the three images
    passes(images)
    assert Counted.num_decoded == 3 + tried
    passes(train_images(camvid, "disk"))  # as another case or process would
    assert Counted.num_decoded == 3 + tried
    passes(train_images(camvid, None))
    assert Counted.num_decoded == 3 + tried + 6


def test_evaluations_are_kept_too(camvid: Dataset) -> None:
    evaluation = Evaluation(split="val", size=(4, 4))
    images = EvalImages(camvid, camvid.samples("val"), evaluation, RECIPE)
    plain = [images[0, i] for i in range(2)]
    keep_decoded(images, "disk", "val", 2)
    decoded = Counted.num_decoded
    for (image, target, name), again in zip(plain, [images[0, i] for i in range(2)], strict=True):
        assert torch.equal(image, again[0])
        assert torch.equal(target, again[1])
        assert name == again[2]
        assert image.shape == (3, 4, 4)
        assert target.shape == (8, 10)
    assert Counted.num_decoded == decoded


def test_what_is_read_once_is_not_kept(camvid: Dataset) -> None:
    images = TrainImages(camvid, camvid.samples("train"), RECIPE, seed=1)
    keep_decoded(images, "auto", "train", times_read=1)
    assert images.kept is None
    assert Counted.num_decoded == 0
    train_images(camvid, "disk")
    keep_decoded(images, "auto", "train", times_read=1)
    assert images.kept is not None  # already decoded


@pytest.mark.parametrize("spoil", ["truncated", "longer", "no index", "half index", "no about"])
def test_what_is_not_whole_is_made_again(camvid: Dataset, spoil: str) -> None:
    plain = passes(train_images(camvid, "disk"))
    [entry] = entries()
    data, index = entry.path / "data.bin", entry.path / "index.npy"
    match spoil:
        case "truncated":
            data.write_bytes(data.read_bytes()[:-1])
        case "longer":
            data.write_bytes(data.read_bytes() + b"x")
        case "no index":
            index.unlink()
        case "half index":
            index.write_bytes(index.read_bytes()[:90])
        case _:
            (entry.path / "about.json").write_text("{")
    decoded = Counted.num_decoded
    again = passes(train_images(camvid, "disk"))
    assert Counted.num_decoded > decoded
    for one, other in zip(plain, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_changed_file_is_noticed(camvid: Dataset) -> None:
    train_images(camvid, "disk")
    image = camvid.samples("train")[0].image
    other = camvid.samples("val")[1].image
    assert image is not None
    assert other is not None
    image.write_bytes(other.read_bytes())
    fresh = open_dataset("camvid", "camvid", None, {"partial": True}, {"camvid": camvid.root})
    images = train_images(fresh, "disk")
    plain = train_images(fresh, None)
    assert torch.equal(images[0, 0][0], plain[0, 0][0])
    assert len(entries()) == 2


def pairs(num: int, size: int = 10) -> list[Pair]:
    values = [np.full((size, size, 3), i, np.uint8) for i in range(num)]
    return [(value, value[..., 0]) for value in values]


def kept(key: str, cache: str = "disk", num: int = 5, size: int = 10) -> module.Kept | None:
    made = pairs(num, size)
    return keep(cache, key, f"about {key}", num, made.__getitem__, lambda: iter(made), 2)


def test_a_disk_that_fills_at_the_last_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise CannotWrite("Cannot write about.json: No space left on device.")

    monkeypatch.setattr(module, "write_json", full)
    in_ram = kept("a", "auto")
    assert in_ram is not None
    assert in_ram.where == "ram"
    with pytest.raises(module.CacheError, match="No space left"):
        kept("a", "disk")


def test_the_least_recently_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_GB", str(5 * 400 * 2.5 / GIGABYTE))  # two and a half entries
    first = kept("a")
    kept("b")
    os.utime(entries()[0].path / "about.json", (1, 1))
    assert [entry.about for entry in entries()] == ["about a", "about b"]
    kept("a")  # used again
    kept("c")
    assert {entry.about for entry in entries()} == {"about a", "about c"}
    assert first is not None
    assert first[3][0][0, 0, 0] == 3


def test_what_has_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE_GB", "0")
    with pytest.raises(UserError, match=r"about a takes 0\.0 GB decoded, more than the cache"):
        kept("a")
    in_ram = kept("a", "auto")
    assert in_ram is not None
    assert in_ram.where == "ram"
    memory = psutil.virtual_memory()._replace(available=100)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert kept("a", "auto") is None
    with pytest.raises(UserError, match="more than half of the free memory"):
        kept("a", "ram")
    monkeypatch.setenv("BENCH_CACHE_GB", "much")
    with pytest.raises(UserError, match="BENCH_CACHE_GB must be a number of GB, not 'much'"):
        kept("a")
    monkeypatch.delenv("BENCH_CACHE_GB")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Cannot keep decoded images in"):
        kept("a")
    assert kept("a", "auto") is None


def test_what_is_kept_cannot_be_spoilt() -> None:
    for cache in ("disk", "ram"):
        found = kept("a", cache)
        assert found is not None
        found[1][0][:] = 99
        assert found[1][0].max() == 1


def test_another_process_maps_the_file_itself() -> None:
    found = kept("a", num=50, size=100)
    assert found is not None
    sent = pickle.dumps(found)
    assert len(sent) < 50 * 100 * 100  # without the pixels
    assert np.array_equal(pickle.loads(sent)[7][0], found[7][0])


def test_what_is_being_written_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_GB", str(5 * 400 * 1.5 / GIGABYTE))
    folder = module.cache_folder() / "decoded"
    for name in ("held", "left"):
        (folder / f"{name}.tmp").mkdir(parents=True)
        (folder / f"{name}.tmp" / "data.bin").write_bytes(bytes(1500))
    with lease.hold(folder / "held.lock"):
        kept("a")
    assert [path.name for path in sorted(folder.glob("*.tmp"))] == ["held.tmp"]


def test_a_bad_file_is_reported_at_once(camvid: Dataset) -> None:
    bad = camvid.samples("train")[2].image
    assert bad is not None
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"Cannot decode .*a2\.png"):
        train_images(camvid, "auto")
    assert Counted.num_decoded <= 6  # three for the estimate, three to cache; not again for memory
    assert entries() == []


IN_RAM = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
from bench.datasets.registry import open_dataset
from bench.loading.predecode import keep_decoded
from bench.loading.images import TrainImages
from bench.suite.recipe import Recipe
shapes = open_dataset("shapes", "shapes", None, {"size": [16, 16], "num_train": 200}, {})
images = TrainImages(shapes, shapes.samples("train"), Recipe(epochs=1), 0)
keep_decoded(images, "ram", "train", 2)
print(images.kept.where, images[0, 199][0].shape)
"""


def test_memory_needs_no_open_files() -> None:
    """Each tensor from a worker holds a file; there are more images than files that may be open."""
    done = subprocess.run([sys.executable, "-c", IN_RAM], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "ram torch.Size([3, 16, 16])\n", done.stderr


def test_a_stop_while_decoding_leaves_nothing(camvid: Dataset) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    images = TrainImages(camvid, camvid.samples("train"), RECIPE, seed=1)
    with pytest.raises(Stop):
        keep_decoded(images, "disk", "train", 2, stop)
    assert entries() == []


def test_waiting_for_another_process_gives_signs_of_life(
    camvid: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.01)
    train_images(camvid, "disk")
    path = entries()[0].path
    clear_cache()
    path.parent.mkdir(parents=True)
    other = lease.hold(path.with_suffix(".lock"))
    other.__enter__()
    beats = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            other.__exit__(None, None, None)

    images = TrainImages(camvid, camvid.samples("train"), RECIPE, seed=1)
    keep_decoded(images, "disk", "train", 2, beat)
    assert len(beats) >= 3
    assert images.kept is not None


def test_clearing() -> None:
    kept("a")
    num_entries, num_bytes = clear_cache()
    assert num_entries == 1
    assert num_bytes > 2000
    assert entries() == []
    assert clear_cache() == (0, 0)


BUILD = """
import sys, time, numpy as np
from bench.loading.cache import keep
def slow():
    for i in range(50):
        time.sleep(0.05)
        print(i, flush=True)
        yield np.full((9, 9, 3), i, np.uint8), np.full((9, 9), i, np.uint8)
one = np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)
kept = keep("disk", "k", "slow", 50, lambda i: one, slow, 2)
print("sum", sum(int(kept[i][1][0, 0]) for i in range(50)))
"""


def build() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILD], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_killed_while_decoding_leaves_nothing_half() -> None:
    first = build()
    assert first.stdout is not None
    assert first.stdout.readline() == "0\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert all(entry.about == "incomplete" for entry in entries())
    out, _ = build().communicate()
    assert out.endswith(f"sum {sum(range(50))}\n")
    assert [entry.about for entry in entries()] == ["slow"]


def test_two_processes_decode_once() -> None:
    first = build()
    assert first.stdout is not None
    first.stdout.readline()
    second = build()
    for process in (first, second):
        out, _ = process.communicate()
        assert out.endswith(f"sum {sum(range(50))}\n")
    assert "0\n" not in out.removesuffix(f"sum {sum(range(50))}\n")


def test_an_entry_shows_when_it_was_used() -> None:
    kept("a")
    [entry] = entries()
    assert entry.num_bytes > 5 * 400
    assert abs(entry.used - time.time()) < 100
