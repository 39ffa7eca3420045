"""Networks that misbehave in training, to test the engines."""

import ctypes
import os
import signal
import sys
import time
from functools import partial

import torch
from torch import nn


class Planted(nn.Module):
    """A 1x1 convolution that does something in each training pass after the fifth."""

    def __init__(self, num_classes: int, what: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)
        self.what, self.num_passes = what, 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.training and image.device.type == "cpu":
            self.num_passes += 1
            if self.num_passes > 5:
                self.misbehave(len(image))
        return self.conv(image)

    def misbehave(self, batch: int) -> None:
        match self.what:
            case "segv":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leave":
                os._exit(3)
            case "exits":
                sys.exit(0)
            case "hang":
                time.sleep(1000)
            case "slow":
                time.sleep(0.05)
            case "tells":
                told = os.environ.get("BENCH_TOLD")
                could_use_cuda = not torch.cuda._is_in_bad_fork()
                print(f"BENCH_TOLD={told} in {os.getsid(0)}, {could_use_cuda}", flush=True)
            case "insatiable":
                raise torch.OutOfMemoryError("planted: out of memory")
            case "kills_second" if torch.distributed.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "fails_second" if torch.distributed.get_rank() == 1:
                raise ValueError("planted: only here")
            case "hangs_second" if torch.distributed.get_rank() == 1:
                time.sleep(1000)
            case "kills_first" if torch.distributed.get_rank() == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            case "greedy" if batch > 2:
                raise torch.OutOfMemoryError("planted: out of memory")


NAMES = ("segv", "kill", "leave", "exits", "hang", "slow", "greedy", "insatiable", "tells", "good")
segv, kill, leave, exits, hang, slow, greedy, insatiable, tells, good = (
    partial(Planted, what=what) for what in NAMES
)


class NotANumber(Planted):
    """Returns NaN logits in one pass."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = super().forward(image)
        return logits * float("nan") if self.training and self.num_passes == 6 else logits


class Unpooling(Planted):
    """Uses an operation without a deterministic form."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pooled, indices = nn.functional.max_pool2d(self.conv(image), 2, return_indices=True)
        return nn.functional.max_unpool2d(pooled, indices, [2, 2])


class Dropping(nn.Sequential):
    """A small network with BatchNorm and dropout, slow enough to be stopped in between."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3)),
            Planted(num_classes, "slow"),
        )
        self[-1].conv = nn.Conv2d(8, num_classes, 1)


kills_second, fails_second, hangs_second, kills_first = (
    partial(Planted, what=what)
    for what in ("kills_second", "fails_second", "hangs_second", "kills_first")
)
dropping = Dropping
nan = partial(NotANumber, what="nan")
unpool = partial(Unpooling, what="unpool")
