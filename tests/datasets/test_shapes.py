import hashlib

import numpy as np

from bench.datasets.registry import open_dataset
from bench.datasets.shapes import LABELS


def shapes(**options: object):
    return open_dataset("shapes", "shapes", None, options, {})


def test_images_depend_on_seed_split_and_index_alone() -> None:
    dataset, longer = shapes(num_train=4), shapes(num_train=9)
    first = dataset.read(dataset.samples("train")[3])
    assert np.array_equal(first[0], longer.read(longer.samples("train")[3])[0])
    others = [
        dataset.read(dataset.samples("train")[2]),
        dataset.read(dataset.samples("val")[3]),
        shapes(seed=1).read(dataset.samples("train")[3]),
    ]
    assert all(not np.array_equal(first[0], other[0]) for other in others)


def test_every_class_and_void_occur() -> None:
    dataset = shapes(size=(64, 80), num_val=30)
    targets = np.stack([dataset.read(sample)[1] for sample in dataset.samples("val")])
    assert targets.shape == (30, 64, 80)
    shares = [(targets == k).mean() for k in (*range(LABELS.num_classes), 255)]
    assert all(share > 0.005 for share in shares)
    assert shares[0] == max(shares)


def test_targets_are_those_of_the_first_release() -> None:
    """Changed targets are another dataset: if this fails, raise `Shapes.version`."""
    dataset = shapes(size=(32, 32))
    target = dataset.read(dataset.samples("train")[0])[1]
    assert hashlib.sha256(target.tobytes()).hexdigest()[:16] == "22dc08626c43144e"
