"""Checkpoints: a killed run continues from the last, or the one before it."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.evaluation.setup import Setup
from bench.machine.clock import Clock
from bench.machine.files import write_atomically
from bench.machine.numerics import Numerics, read_numerics
from bench.machine.random_state import random_states, set_random_states
from bench.models.weight_files import UNREADABLE
from bench.records.case_folder import CaseFolder
from bench.records.history import History
from bench.text import first_line
from bench.training.loop import TrainState

VERSION = 3  # of the content of a checkpoint; other versions are not read


@dataclass
class Best:
    """The epoch with the best score on the selection split so far, and its weights on the CPU."""

    epoch: int
    score: float
    state: dict[str, torch.Tensor] | None  # None if the last model is the result


@dataclass
class Progress:
    """What training has produced so far, apart from its state.

    notes: what happened during the run that a reader should know.
    num_sharing: the most cases that shared the machine while this one was trained.
    """

    history: History
    best: Best | None = None
    resumed: int = 0
    notes: tuple[str, ...] = ()
    num_sharing: int = 1


@dataclass(frozen=True)
class Saved:
    """A checkpoint as read from disk."""

    content: dict[str, Any]

    @property
    def numerics(self) -> Numerics:
        """The numerics that the checkpoint was made with."""
        return read_numerics(self.content["numerics"])


@dataclass(frozen=True)
class Beginning:
    """How training starts: from its seed or a checkpoint; the rest as in `Progress`."""

    saved: Saved | None
    clock: Clock
    notes: tuple[str, ...]
    num_sharing: int


def save_checkpoint(
    folder: CaseFolder,
    case_id: str,
    data: str,
    state: TrainState,
    progress: Progress,
    setup: Setup,
) -> None:
    """Write everything that the next step depends on; keep the previous checkpoint.

    Args:
        data: fingerprint of what the result depends on.

    Raises:
        CannotWrite: for example if the disk is full; the previous checkpoint is still there.
    """
    content = {
        "version": VERSION,
        "case": case_id,
        "data": data,
        "model": state.model.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "losses": state.losses,
        "counts": state.counts,
        "seconds": state.clock.seconds,
        "peak_memory_mib": state.peak_memory_mib,
        "history": progress.history,
        "best": vars(progress.best) if progress.best else None,
        "random": random_states(setup.device),
        "random_of_others": state.random_of_others,
        "numerics": setup.numerics.as_dict(),
        "resumed": progress.resumed,
        "notes": progress.notes,
        "num_sharing": progress.num_sharing,
    }
    serialised = io.BytesIO()  # torch's own writer does not say why it fails
    torch.save(content, serialised)

    def write(beside: Path) -> None:
        with beside.open("wb") as stream:
            stream.write(serialised.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())  # before the last one is renamed
        if folder.checkpoint.exists():
            os.replace(folder.checkpoint, folder.previous)

    write_atomically(folder.checkpoint, write)


def read_checkpoint(folder: CaseFolder, case_id: str, data: str) -> tuple[Saved | None, str | None]:
    """Read a case's last checkpoint on this data; if it is broken, read the one before.

    Returns:
        The checkpoint, or None if there is none (the case then restarts, which does not
        change its results), and a note on what is broken and what was done about it.
    """
    broken = []
    for file in (folder.checkpoint, folder.previous):
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(content, dict):
                raise ValueError("not a checkpoint")
        except FileNotFoundError:
            continue
        except UNREADABLE as error:
            broken.append(f"{file.name} cannot be read ({first_line(error)})")
            file.unlink()  # otherwise the next save would replace the good one
            continue
        if (content.get("case"), content.get("data")) != (case_id, data):
            continue
        if content.get("version") != VERSION:
            broken.append(f"{file.name} was written by another version of bench")
            file.unlink()
            continue
        note = (
            f"{broken[0]}; continued from {file.name}, step {content['step']}" if broken else None
        )
        return Saved(content), note
    return None, f"{' and '.join(broken)}; restarted" if broken else None


def restore(begin: Beginning, state: TrainState, setup: Setup) -> Progress:
    """Load the checkpoint, if there is one, into `state`.

    The random generators continue from their saved state, each process's from its own. The losses
    and counts of all processes go to the first, as `give_to_first` left them.
    """
    if begin.saved is None:
        return Progress([], notes=begin.notes, num_sharing=begin.num_sharing)
    content = begin.saved.content
    state.model.net.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scaler.load_state_dict(content["scaler"])
    world = setup.world
    if world.writes:
        state.losses.copy_(content["losses"])
        state.counts.copy_(content["counts"])
    state.step = content["step"]
    state.peak_memory_mib = content["peak_memory_mib"]
    now = dict(state.clock.seconds)
    state.clock.seconds |= content["seconds"]
    for name in ("start", "compile"):
        state.clock.seconds[name] += now[name]
    state.random_of_others = tuple(content.get("random_of_others", ()))  # not in old checkpoints
    set_random_states((content["random"], *state.random_of_others)[world.rank], setup.device)
    progress = Progress(
        history=content["history"],
        best=Best(**content["best"]) if content["best"] else None,
        resumed=content["resumed"] + 1,
        notes=(*content["notes"], *begin.notes),
        num_sharing=max(content["num_sharing"], begin.num_sharing),
    )
    content.clear()  # the state has copies
    return progress
