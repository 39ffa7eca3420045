"""What a large matrix product reaches on a device: the limit that networks are measured against."""

import statistics
import time
from functools import cache

import torch

from bench.machine.clock import synchronize
from bench.machine.device import DTYPES
from bench.machine.numerics import Precision

SIDES = {"cuda": 8192, "mps": 4096}  # of the square matrices
SIDE_CPU = 1024
RUNS = 3


def peak_tflops(device: torch.device, precision: Precision) -> float:
    """Return the 10^12 operations per second of a matrix product in a precision as it is set.

    A process measures it once for each precision and number of threads.
    """
    return _measured(device, precision, torch.get_num_threads())


@cache
@torch.inference_mode()
def _measured(device: torch.device, precision: Precision, num_threads: int) -> float:
    side = SIDES.get(device.type, SIDE_CPU)
    # Random numbers: zeros and ones draw less power, and their products are faster.
    generator = torch.Generator(device).manual_seed(0)
    one = torch.randn(side, side, generator=generator, device=device)
    one = one.to(DTYPES.get(precision, torch.float32))

    def seconds() -> float:
        synchronize(device)
        start = time.perf_counter()
        torch.mm(one, one)
        synchronize(device)
        return time.perf_counter() - start

    seconds()  # warm-up
    return 2 * side**3 / statistics.median(seconds() for _ in range(RUNS)) / 1e12
