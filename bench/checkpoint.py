"""What a killed run continues from: the last checkpoint, or the one before it."""

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from bench.atomic import write_atomically
from bench.device import Numerics, random_states, set_random_states
from bench.networks import first_line
from bench.record import CaseFolder
from bench.train import TrainState

VERSION = 2  # of what a checkpoint holds; another's is not read
History = list[dict[str, Any]]


@dataclass
class Best:
    """The epoch with the best score on the selection split so far, and its weights on the CPU."""

    epoch: int
    score: float
    state: dict[str, torch.Tensor] | None  # None where the last model is the result


@dataclass
class Progress:
    """What a training has to show so far, beside its state."""

    history: History
    best: Best | None = None
    resumed: int = 0


@dataclass(frozen=True)
class Saved:
    """A checkpoint as it was read."""

    content: dict[str, Any]

    @property
    def numerics(self) -> Numerics:
        """What it was made with."""
        return Numerics(**self.content["numerics"])


def save_checkpoint(
    folder: CaseFolder,
    case_id: str,
    data: str,
    state: TrainState,
    progress: Progress,
    numerics: Numerics,
    device: torch.device,
) -> None:
    """Write all that the next step depends on; the checkpoint before stays beside it.

    Args:
        data: fingerprint of the training split.

    Raises:
        CannotWrite: where the disk is full, say; the checkpoint before is still there.
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
        "seconds": state.clock.seconds,
        "peak_memory_mib": state.peak_memory_mib,
        "history": progress.history,
        "best": vars(progress.best) if progress.best else None,
        "random": random_states(device),
        "numerics": numerics.as_dict(),
        "resumed": progress.resumed,
    }
    serialised = io.BytesIO()  # torch's own writer does not say why it cannot write
    torch.save(content, serialised)

    def write(beside: Path) -> None:
        beside.write_bytes(serialised.getbuffer())
        if folder.checkpoint.exists():
            os.replace(folder.checkpoint, folder.previous)

    write_atomically(folder.checkpoint, write)


def read_checkpoint(folder: CaseFolder, case_id: str, data: str) -> tuple[Saved | None, str | None]:
    """Read the last checkpoint of a case on this data, or the one before where that is broken.

    Returns:
        The checkpoint, None where there is none: then the case begins anew, which changes no
        number. And what is broken and what was done about it.
    """
    broken = []
    for file in (folder.checkpoint, folder.previous):
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except (OSError, RuntimeError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
            broken.append(f"{file.name} cannot be read ({first_line(error)})")
            continue
        if (content.get("case"), content.get("data")) != (case_id, data):
            continue
        if content.get("version") != VERSION:
            broken.append(f"{file.name} is of another version of bench")
            continue
        note = f"{broken[0]}; went on from {file.name}, step {content['step']}" if broken else None
        return Saved(content), note
    return None, f"{' and '.join(broken)}; began anew" if broken else None


def restore(saved: Saved, state: TrainState, device: torch.device) -> Progress:
    """Put a checkpoint back into `state`; the random states are those of the saved moment."""
    content = saved.content
    state.model.net.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scaler.load_state_dict(content["scaler"])
    state.losses.copy_(content["losses"])
    state.step = content["step"]
    state.peak_memory_mib = content["peak_memory_mib"]
    start = state.clock.seconds["start"]
    state.clock.seconds |= content["seconds"]
    state.clock.seconds["start"] += start
    set_random_states(content["random"], device)
    best = Best(**content["best"]) if content["best"] else None
    return Progress(content["history"], best, content["resumed"] + 1)
