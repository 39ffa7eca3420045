"""Weight files: only tensors are taken from them, and no code in them runs."""

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.errors import UserError
from bench.text import first_line, listed

UNREADABLE = (  # raised for files that are truncated, damaged or something else
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, BadZipFile, SafetensorError, pickle.UnpicklingError, struct.error),
    *(OverflowError, MemoryError),
)
WRAPPERS = (  # keys that checkpoints keep weights under
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module"),
    *(
        "weights",
        "state",
        "params",
        "ema",
        "model_ema",
        "ema_state_dict",
        "state_dict_ema",
        "ema_model",
    ),
)
NO_WEIGHTS = re.compile("optim|sched|scaler|amp", re.IGNORECASE)
REBUILDERS = {  # of tensors; nothing else in a file is called
    ("torch._utils", name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
}
SAVE_WEIGHTS = "torch.save(net.state_dict(), 'weights.pth')"


class Foreign:
    """Stands for an object in a file that is no tensor; it does nothing."""

    kind = "object"

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> "Foreign":
        """Return itself, as what the object would return is unknown."""
        return self

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None:
        """Take an item, as a list would."""

    extend = add = update = append


class _Unpickler(pickle._Unpickler):
    """Rebuilds tensors and plain containers, and puts `Foreign` for everything else."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in REBUILDERS or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("collections", "defaultdict"): lambda *args: {},
            ("torch", "Size"): torch.Size,
            ("torch.nn.parameter", "Parameter"): nn.Parameter,
            ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
        }
        return known.get((module, name)) or type(name, (Foreign,), {"kind": f"{module}.{name}"})

    def load_build(self) -> None:
        """Drop the state of an object: no tensor needs one, and it could change torch itself."""
        self.stack.pop()  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build


def _load(stream: Any, **options: Any) -> Any:
    return _Unpickler(stream, **options).load()


INERT_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from torch's format without running code in it.

    Wrappers of common training scripts are taken off.

    Raises:
        UserError: if the file cannot be read, or holds no state dict, or several.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = _loaded(file)
    except FileNotFoundError as error:
        raise UserError(f"No weight file {file}.") from error
    except UNREADABLE as error:
        if "torch.jit" in str(error):
            raise UserError(
                f"{file} is a TorchScript archive. Only state dicts are loaded; save one: "
                f"{SAVE_WEIGHTS}."
            ) from error
        raise UserError(
            f"Cannot read weights from {file}: it is damaged, incomplete or no file of weights "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    if isinstance(loaded, Foreign):
        raise UserError(
            f"{file} holds a whole pickled object ({loaded.kind}). Only state dicts are loaded; "
            f"save one where its code is: {SAVE_WEIGHTS}."
        )
    state = _state_dict(loaded, file)
    return {str(key): value for key, value in state.items()}


def _loaded(file: Path) -> Any:
    """Load a file of torch; objects other than tensors are replaced by `Foreign`."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=INERT_PICKLE)


def _state_dict(loaded: Any, file: Path) -> Mapping[Any, Tensor]:
    """Return the state dict in the content of a file.

    Raises:
        UserError: if there is none, or several.
    """
    inside: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    tensors = {key: value for key, value in inside.items() if isinstance(value, Tensor)}
    found = [key for key in WRAPPERS if _has_tensors(inside.get(key))]
    found = found or [
        key
        for key, value in inside.items()
        if _has_tensors(value) and not NO_WEIGHTS.search(str(key))
    ]
    if not found and any(value.ndim for value in tensors.values()):
        return tensors
    if len(found) == 1:
        return _state_dict(inside[found[0]], file)
    if found:
        raise UserError(
            f"{file} holds several sets of weights ({listed(found)}). Save the one you mean: "
            f"torch.save(torch.load('{file.name}', weights_only=False)['{found[0]}'], "
            "'weights.pth')."
        )
    kinds = [f"{key}: {_kind(value)}" for key, value in inside.items()]
    holds = f"it holds {listed(kinds)}" if kinds else f"it holds {_kind(loaded)}"
    raise UserError(
        f"{file} is not a state dict (names to tensors); {holds}. Save the weights alone: "
        f"{SAVE_WEIGHTS}."
    )


def _has_tensors(value: object) -> bool:
    """Whether there is a tensor in a mapping with names, or in a mapping in it."""
    return isinstance(value, Mapping) and any(
        isinstance(name, str) and (isinstance(one, Tensor) or _has_tensors(one))
        for name, one in value.items()
    )


def _kind(value: object) -> str:
    return value.kind if isinstance(value, Foreign) else type(value).__name__


def write_weights(state: Mapping[str, Tensor], file: Path) -> None:
    """Write a state dict as .safetensors."""
    plain = torch.contiguous_format
    own = {
        key: value.detach().cpu().clone(memory_format=plain)
        for key, value in state.items()
        if isinstance(value, Tensor)  # a module may add a state of another kind
    }
    file.write_bytes(save(own))  # save_file does not say why it cannot write
