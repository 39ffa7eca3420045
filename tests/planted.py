"""Networks that misbehave in training, for the tests of engines."""

import ctypes
import os
import signal
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
            case "hang":
                time.sleep(1000)
            case "slow":
                time.sleep(0.05)
            case "greedy" if batch > 2:
                raise torch.OutOfMemoryError("planted: out of memory")


segv, kill, leave, hang, slow, greedy, good = (
    partial(Planted, what=what)
    for what in ("segv", "kill", "leave", "hang", "slow", "greedy", "good")
)
