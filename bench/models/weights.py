"""Weight files: state dicts only, loaded so that no weight stays random unnoticed."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.errors import UserError
from bench.text import listed, plural

UNREADABLE = (  # raised for files that are truncated, damaged or something else
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, BadZipFile, SafetensorError, pickle.UnpicklingError),
)
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys that checkpoints keep weights under
KEYS_SHOWN = 3  # keys are long
PREFIXES = ("", "model.", "encoder.", "backbone.")  # of an encoder's keys, in a file or network


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from torch's format without running code in it.

    Raises:
        UserError: if the file cannot be read or is not a state dict.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"No weight file {file}.") from error
    except UNREADABLE as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"Cannot read weights from {file}: {first}. Only state dicts are loaded "
            "(.safetensors, or torch.save of a state_dict)."
        ) from error
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserError(f"{file} is not a state dict (names to tensors).")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def write_weights(state: Mapping[str, Tensor], file: Path) -> None:
    """Write a state dict as .safetensors."""
    own = {key: value.detach().cpu().clone() for key, value in state.items()}
    file.write_bytes(save(own))  # save_file does not say why it cannot write


def load_model(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a whole network; every key must fit.

    Raises:
        UserError: naming keys that are missing, unexpected or of another shape.
    """
    own = net.state_dict()
    missing = [key for key in own if key not in state and not _is_counter(key)]
    extra = [key for key in state if key not in own]
    if missing or extra:
        raise UserError(
            f"{source} does not fit the model: {_some('missing', missing)}"
            f"{_some('unexpected', extra)}To load only the encoder, give weights: {{encoder: …}}."
        )
    _check_shapes(own, state, source)
    net.load_state_dict(dict(state), strict=False)


def load_encoder(net: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Load weights into `net.encoder`; the file must have all its keys.

    Returns:
        The keys of the file that the encoder does not have, such as a classifier's.

    Raises:
        UserError: if the network has no encoder, or a key is missing or of another shape.
    """
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UserError(f"{source}: this model has no part named encoder.")
    adapted = getattr(encoder, "adapted", dict)
    state = adapted(state)
    own = encoder.state_dict()
    needed = [key for key in own if not _is_counter(key) and not _is_own_head(net, key)]
    best: dict[str, str] = {}  # the encoder's keys to the file's
    for file_prefix in PREFIXES:
        for own_prefix in PREFIXES:
            by_name = {
                _flat(own_prefix + key.removeprefix(file_prefix)): key
                for key in state
                if key.startswith(file_prefix)
            }
            names = {key: by_name[_flat(key)] for key in own if _flat(key) in by_name}
            if sum(key in names for key in needed) > sum(key in best for key in needed):
                best = names
    missing = [key for key in needed if key not in best]
    if missing:
        raise UserError(
            f"{source} does not fill the encoder: {_some('missing', missing)}"
            "Is it a file for another architecture?"
        )
    found = {key: state[name] for key, name in best.items()}
    for key in [key for key in found if _is_own_head(net, key)]:
        if found[key].shape != own[key].shape:  # for other classes
            del found[key]
    _check_shapes(own, found, source)
    encoder.load_state_dict(found, strict=False)
    used = {best[key] for key in found}
    return tuple(sorted(key for key in state if key not in used))


def load_part(
    net: nn.Module, state: Mapping[str, Tensor], part: str, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Load what fits from a parent's weights: the keys of `part`, or every key for "all".

    Returns:
        The parent's keys of that part that were not used, and the network's keys of that part that
        keep their initial values.

    Raises:
        UserError: if nothing fits, or a named part is not filled completely.
    """
    prefix = "" if part == "all" else f"{part}."
    own = {key: value for key, value in net.state_dict().items() if key.startswith(prefix)}
    taken = {
        key: value for key, value in state.items() if key in own and value.shape == own[key].shape
    }
    missing = [
        key
        for key in own
        if key not in taken and not _is_counter(key) and not _is_own_head(net, key)
    ]
    if not taken or (part != "all" and missing):
        raise UserError(
            f"init_from: the weights of {source} do not fill {part!r}: {_some('missing', missing)}"
        )
    net.load_state_dict(taken, strict=False)
    unused = tuple(key for key in state if key.startswith(prefix) and key not in taken)
    return unused, tuple(key for key in own if key not in taken)


def _check_shapes(own: Mapping[str, Any], state: Mapping[str, Any], source: str) -> None:
    wrong = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if wrong:
        raise UserError(f"{source} does not fit the model: {listed(wrong, most=1)}.")


def _flat(key: str) -> str:
    """Rename a key as timm's feature extractors may: stages.0 becomes stages_0."""
    return key.replace(".", "_")


def _is_own_head(net: nn.Module, key: str) -> bool:
    """Return whether a key belongs to a head in the encoder that only some weights have."""
    heads = tuple(getattr(net.encoder, "not_pretrained", ())) if hasattr(net, "encoder") else ()
    return key.removeprefix("encoder.").startswith(heads)


def _is_counter(key: str) -> bool:
    """Return whether a key is BatchNorm's count of batches, which older files lack."""
    return key.endswith("num_batches_tracked")


def _some(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{plural(len(keys), 'key')} {what} ({listed(keys, KEYS_SHOWN)}). "
