"""What a killed run continues from."""

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from bench.atomic import write_atomically
from bench.device import Numerics, random_states, set_random_states
from bench.errors import UserError
from bench.networks import first_line
from bench.train import TrainState

History = list[dict[str, Any]]
POSITION = ("step", "seconds", "data_wait_s", "peak_memory_mib")  # of TrainState


def save_checkpoint(
    file: Path,
    case_id: str,
    data: str,
    state: TrainState,
    history: History,
    numerics: Numerics,
    resumed: int,
    device: torch.device,
) -> None:
    """Write all that the next step depends on.

    Args:
        data: fingerprint of the training split.
    """
    content = {
        "case": case_id,
        "data": data,
        "model": state.model.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "position": {name: getattr(state, name) for name in POSITION},
        "total_loss": state.total_loss,
        "history": history,
        "random": random_states(device),
        "numerics": numerics.as_dict(),
        "resumed": resumed,
    }
    write_atomically(file, lambda beside: torch.save(content, beside))


def recorded_numerics(file: Path, case_id: str) -> Numerics | None:
    """Return what a checkpoint of this case was made with; None where there is none.

    Raises:
        UserError: where the checkpoint cannot be read.
    """
    content = _read(file)
    if content is None or content["case"] != case_id:
        return None
    return Numerics(**{field.name: content["numerics"][field.name] for field in fields(Numerics)})


def load_checkpoint(
    file: Path, case_id: str, data: str, state: TrainState, device: torch.device
) -> tuple[History, int]:
    """Put a checkpoint back into `state`; the random states are those of the saved moment.

    Returns:
        The history so far and how often this case has been resumed, this time included; nothing
        and 0 where there is no checkpoint of this case on this data.
    """
    content = _read(file)
    if content is None or (content["case"], content["data"]) != (case_id, data):
        return [], 0
    state.model.net.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scaler.load_state_dict(content["scaler"])
    state.total_loss.copy_(content["total_loss"])
    for name in POSITION:
        setattr(state, name, content["position"][name])
    set_random_states(content["random"], device)
    return content["history"], content["resumed"] + 1


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return content
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(
            f"Cannot read the checkpoint {file}: {first_line(error)}. "
            "Delete it to begin this case again."
        ) from error
