"""One training in several processes: states and stops that belong to all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.machine.random_state import random_states, seed_everything
from bench.machine.world import World
from bench.records.heartbeat import Heartbeat, Interrupted
from bench.training.loop import TrainState


def give_to_first(state: TrainState, world: World, device: torch.device) -> None:
    """Hand the losses, counts and random states of all processes to the first, which saves them.

    The other processes' losses and counts become 0, so that they can be added up again later.
    """
    if world.is_alone:
        return
    for tensor in (state.losses, state.counts):
        world.add_up(tensor)
        if not world.writes:
            tensor.zero_()
    own = random_states(device), state.peak_memory_mib
    states, peaks = zip(*world.gather(own), strict=True)
    state.random_of_others = states[1:]
    state.peak_memory_mib = max(peaks)


def start_alike(model: nn.Module, seed: int, world: World) -> None:
    """Give every process the first one's weights, and random numbers of its own for dropout."""
    world.copy_first([*model.parameters(), *model.buffers()])
    if not world.writes:
        own = np.random.SeedSequence((seed, world.rank)).generate_state(1)[0]
        seed_everything(int(own))


@dataclass
class SharedStop:
    """Whether a case is to stop, which the first process decides.

    In training all processes stop after the same step, because the first cannot save without the
    others. Otherwise it stops by itself, and the others end with it.
    """

    world: World
    asked: Callable[[], bool]
    due: bool = False
    is_training: bool = False

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Stop together while the body runs; call `agree` in each step."""
        self.is_training = not self.world.is_alone
        try:
            yield
        finally:
            self.is_training = False

    def agree(self) -> None:
        """Let the first process say whether to stop."""
        if self.is_training:
            self.due = self.world.told(self.asked())

    def is_due(self) -> bool:
        """Return whether to stop now."""
        return self.due if self.is_training else self.world.writes and self.asked()


class Follower(Heartbeat):
    """The heartbeat of a process that writes nothing."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self.should_stop = should_stop
        self.progress: dict[str, Any] = {}
        self.num_sharing = 1

    def __call__(self, **progress: Any) -> None:
        """Stop if asked to.

        Raises:
            Interrupted: if the first process said so.
        """
        if self.should_stop():
            raise Interrupted("with the first process of the case")
