"""A fixed piece of work: how fast the machine is at this very moment.

Times of two runs are compared as multiples of it, so that a machine that was busy in one of them
does not pass for a slower network.
"""

import statistics
import time

import torch
import torch.nn.functional as F

from bench.device import synchronize

NUM_RUNS = 5
SHAPES = {"cuda": (8, 64, 128, 128), "mps": (8, 64, 128, 128)}  # (N, C, H, W), fp32
SHAPE_CPU = (1, 64, 64, 64)


@torch.inference_mode()
def reference_s(device: torch.device) -> float:
    """Time a 3x3 convolution of 64 channels on a device: the median of a few runs, in seconds.

    Milliseconds. Draws no random number.
    """
    image = torch.ones(SHAPES.get(device.type, SHAPE_CPU), device=device)
    kernel = torch.ones(image.shape[1], image.shape[1], 3, 3, device=device)

    def seconds() -> float:
        synchronize(device)
        start = time.perf_counter()
        F.conv2d(image, kernel, padding=1)
        synchronize(device)
        return time.perf_counter() - start

    seconds()  # warms up
    return statistics.median(seconds() for _ in range(NUM_RUNS))
