"""How many workers read images on a GPU, by planted speeds."""

import pytest
import torch

from bench.loading import autotune
from bench.loading.loading import Loading


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({0: 100, 1: 90, 2: 91}, 1),  # a worker leaves the training process free
        ({0: 100, 1: 60, 2: 60}, 1),
        ({0: 100, 1: 40, 2: 41}, 0),  # workers would starve the GPU
        ({0: 100, 1: 40, 2: 80, 4: 160, 8: 165}, 4),
        ({0: 100, 1: 300, 2: 310}, 1),
    ],
)
def test_workers_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, rates: dict[int, float], chosen: int
) -> None:
    def rate(images: object, batch_size: int, loading: Loading, use: object) -> float:
        return rates[loading.num_workers]

    monkeypatch.setattr(autotune, "_rate", rate)
    monkeypatch.setattr(autotune, "num_cores", lambda: max(rates))
    found = autotune._for_gpu(None, 8, torch.device("cuda"))  # type: ignore[arg-type]
    assert found.num_workers == chosen
