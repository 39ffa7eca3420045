"""Load state dicts into networks, so that no weight stays random unnoticed."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.text import enumerated, first_line, listed, plural

KEYS_SHOWN = 3  # keys are long
PREFIXES = ("", "model.", "encoder.", "backbone.")  # of an encoder's keys, in a file or network


def load_model(
    net: nn.Module, state: Mapping[str, Tensor], source: str, num_classes: int | None = None
) -> None:
    """Load weights into a whole network; every key must fit.

    Names that wrappers put before every key (DataParallel, torch.compile, Lightning) are taken
    off; keys of other parts of a wrapper, such as a loss, are left out.

    Args:
        num_classes: of the network, to recognise weights for another number.

    Raises:
        UserError: naming keys that are missing, unexpected or of another shape.
    """
    own = {key: value for key, value in net.state_dict().items() if isinstance(value, Tensor)}
    state = _unwrapped(own, state, source)
    missing = [key for key in own if key not in state and not _is_counter(key)]
    extra = [key for key in state if key not in own]
    if missing or extra:
        raise UserError(
            f"{source} does not fit the model: {_some('missing', missing)}"
            f"{_some('unexpected', extra)}To load only the encoder, give weights: {{encoder: …}}."
        )
    _check_shapes(own, state, source, num_classes)
    _fill(net, state, source)


def _unwrapped(
    own: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> Mapping[str, Tensor]:
    """Take off what wrappers put before the keys of a network.

    Raises:
        UserError: if several parts of the file fill the network.
    """
    needed = {key for key in own if not _is_counter(key)}
    plain = without_compiled(state, source)
    parts: dict[str, Mapping[str, Tensor]] = {"": plain}
    for start in _starts(plain):
        parts[start] = {
            key.removeprefix(start): value for key, value in plain.items() if key.startswith(start)
        }
    full = [start for start, part in parts.items() if needed <= part.keys()]
    exact = [start for start in full if parts[start].keys() <= own.keys()] or full
    if len(exact) > 1:
        raise _several(source, "model", exact)
    if exact:
        return parts[exact[0]]
    return max(parts.values(), key=lambda part: len(needed & part.keys()))  # for the message


def _starts(keys: Iterable[str]) -> set[str]:
    """Return everything that keys begin with, up to a dot: a.b.c begins with a. and a.b."""
    return {key[: dot + 1] for key in keys for dot, sign in enumerate(key) if sign == "."}


def _several(source: str, what: str, starts: Iterable[str]) -> UserError:
    names = enumerated([start or "nothing" for start in sorted(starts)])
    return UserError(
        f"{source} has several sets of weights that fill the {what}: keys that begin with {names}. "
        "Save the one you mean."
    )


def without_compiled(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Take off what torch.compile puts before the keys of a module.

    Raises:
        UserError: if the file has compiled and other weights of one name.
    """
    plain = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    if len(plain) < len(state):
        raise _several(source, "model", ["", "_orig_mod."])
    return plain


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
    state = without_compiled(state, source)
    if all(key.startswith("module.") for key in state):  # of DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    state = adapted(state)
    own = encoder.state_dict()
    needed = [key for key in own if not _is_counter(key) and not _is_own_head(net, key)]
    best: dict[str, str] = {}  # the encoder's keys to the file's
    full: dict[frozenset[str], str] = {}  # keys of the file that fill it, and what they begin with
    for file_prefix in ("", *sorted(_starts(state))):
        for own_prefix in PREFIXES:
            by_name = {
                _flat(own_prefix + key.removeprefix(file_prefix)): key
                for key in state
                if key.startswith(file_prefix)
            }
            names = {key: by_name[_flat(key)] for key in own if _flat(key) in by_name}
            num_found = sum(key in names for key in needed)
            if num_found > sum(key in best for key in needed):
                best = names
            if num_found == len(needed):
                full.setdefault(frozenset(names.values()), file_prefix)
    if len(full) > 1:
        raise _several(source, "encoder", full.values())
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
    _fill(encoder, found, source)
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


def _fill(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights that fit by name and shape.

    Raises:
        UserError: if they are of another kind of number, or not finite.
    """
    for key, ours in net.state_dict().items():
        theirs = state.get(key)
        if theirs is None or not isinstance(ours, Tensor):
            continue
        if ours.is_floating_point() != theirs.is_floating_point() or theirs.is_complex():
            raise UserError(f"{source}: {key} is {theirs.dtype}, not {ours.dtype}.")
        has_values = theirs.layout == torch.strided and theirs.device.type == "cpu"
        if has_values and ours.is_floating_point() and not theirs.isfinite().all():
            raise UserError(f"{source}: {key} has values that are not finite (NaN).")
    try:
        net.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise UserError(f"{source} cannot be loaded: {first_line(error)}") from error


def _check_shapes(
    own: Mapping[str, Any], state: Mapping[str, Any], source: str, num_classes: int | None = None
) -> None:
    shapes = {
        key: (tuple(state[key].shape), tuple(own[key].shape))
        for key in own
        if key in state and state[key].shape != own[key].shape
    }
    if not shapes:
        return
    wrong = [f"{key} is {theirs}, not {ours}" for key, (theirs, ours) in shapes.items()]
    sizes = {
        (a, b)
        for theirs, ours in shapes.values()
        for a, b in itertools.zip_longest(theirs, ours)
        if a != b
    }
    first_differ = any(theirs[:1] != ours[:1] for theirs, ours in shapes.values())
    if len(sizes) == 1 and first_differ and (pair := sizes.pop())[1] == num_classes:
        raise UserError(
            f"{source} was trained for {pair[0]} classes, not {num_classes}: "
            f"{listed(wrong, most=1)}. To load only the encoder, give weights: {{encoder: …}}."
        )
    raise UserError(f"{source} does not fit the model: {listed(wrong, most=1)}.")


def of_a_deeper_network(encoder: nn.Module, unused: Iterable[str]) -> str | None:
    """Return a key that was not used though the encoder has its neighbours; None if none is.

    For example layer3.6 of a ResNet-101 beside layer3.0 to layer3.5 of a ResNet-50.
    """
    own = {_flat(key) for key in encoder.state_dict()}
    for key in unused:
        for match in re.finditer(r"(?:^|\.)((?:\w+\.)+)(\d+)\.", key):
            container = _flat(match[1])
            if any(one.startswith(f"{container}0_") for one in own):
                return key
    return None


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
