"""Trying networks before they run: the sizes they take, what they return, on which devices."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.errors import UserError
from bench.models.geometry import Geometry, declared
from bench.models.networks import RUN_ERRORS, build_network, mixes_devices, needs_values, said
from bench.suite.model import ModelSpec
from bench.suite.schema import Size
from bench.text import enumerated

FAKE_LOG = logging.getLogger("torch._subclasses.fake_tensor")
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
SMALL_SIZES = (32, 64, 96, 128)  # smaller images are of no use
T = TypeVar("T")


class WrongOutput(UserError):
    """A network returned something other than logits of the right shape."""


def find_geometry(net: nn.Module, spec: ModelSpec, num_classes: int) -> Geometry:
    """Return the sizes that a network takes: declared by it, else found by probing.

    Raises:
        UserError: if no multiple up to 64 works, or the network does not return logits.
    """
    return declared(net) or without_values(
        spec, num_classes, lambda probe, device: _probe(probe.eval(), spec, num_classes, device)
    )


def _probe(net: nn.Module, spec: ModelSpec, num_classes: int, device: torch.device) -> Geometry:
    def problem(height: int, width: int) -> Problem | None:
        try:
            with torch.no_grad():
                logits = net(torch.zeros(1, 3, height, width, device=device))
        except RUN_ERRORS as error:
            if device.type == "meta" and needs_values(error):
                raise
            text = said(error)
            return Problem(text, f"{spec.arch} fails at {height}x{width}: {text}")
        _check_classes(logits, num_classes, spec.arch)  # no other size would change this
        try:
            check_logits(logits, (1, num_classes, height, width), spec.arch)
        except WrongOutput as error:
            factor = round(height / logits.shape[2], 1), round(width / logits.shape[3], 1)
            return Problem(factor, str(error))
        return None

    problems = []
    for multiple in MULTIPLES:
        # Odd multiples, at least 128 pixels: no larger power of two divides them.
        height, width = (multiple * (2 * math.ceil(n / multiple / 2) + 1) for n in (128, 160))
        if (found := problem(height, width)) is None:
            minima = [n for n in SMALL_SIZES if n % multiple == 0]
            return Geometry(multiple, next((n for n in minima if not problem(n, n)), height))
        problems.append(found)
    if len({found.cause for found in problems}) == 1:  # it has nothing to do with the size
        cause, message = problems[0]
        raise UserError(f"{spec.arch} fails: {cause}" if isinstance(cause, str) else message)
    raise UserError(
        f"{problems[-1].message} (No image size works, up to multiples of {MULTIPLES[-1]}. If "
        "the network takes one fixed size, give it as an option, such as timm's img_size.)"
    )


class Problem(NamedTuple):
    """Why an image size does not work; the cause is the same for sizes that fail alike.

    cause: what the network says, or by which factors its logits are smaller than the image.
    """

    cause: str | tuple[float, float]
    message: str


def check_heads(output: object, shape: tuple[int, ...], arch: str) -> None:
    """Check that a network in training returns logits (N, K, H, W), or heads of such with "out".

    Raises:
        WrongOutput: saying what the network returned instead.
    """
    if not isinstance(output, Mapping):
        _check_trained(output, shape, f"In training, {arch}")
        return
    if "out" not in output:
        names = ", ".join(map(str, output)) or "no head"
        raise WrongOutput(f'In training, {arch} returns {names}; one head must be called "out".')
    for name, head in output.items():
        _check_trained(head, shape, f"In training, head {name!r} of {arch}")


def _check_trained(logits: object, shape: tuple[int, ...], subject: str) -> None:
    check_logits(logits, shape, subject)
    if isinstance(logits, Tensor) and not logits.requires_grad:
        raise WrongOutput(
            f"{subject} returns logits without a gradient; forward must not detach or round "
            "them, nor use torch.no_grad."
        )


def check_logits(logits: object, shape: tuple[int, ...], subject: str) -> None:
    """Check that logits are a tensor of a shape (N, K, H, W).

    Args:
        subject: what returned them, for the message.

    Raises:
        WrongOutput: saying what was returned instead.
    """
    tensor = _check_classes(logits, shape[1], subject)
    if len(tensor) != shape[0]:
        raise WrongOutput(f"{subject} returns {len(tensor)} predictions for {shape[0]} images.")
    if tuple(tensor.shape) != shape:
        (height, width), (h, w) = shape[2:], tensor.shape[2:]
        raise WrongOutput(
            f"{subject} returns logits of {h}x{w} for images of {height}x{width}; both need the "
            "same size (F.interpolate resizes logits)."
        )


def _check_classes(logits: object, num_classes: int, subject: str) -> Tensor:
    """Check that logits are a tensor (N, K, ., .) with one channel for each class."""
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        article = "an" if kind[0] in "AEIOUaeiou" else "a"
        inside = f" of {len(logits)}" if isinstance(logits, tuple | list) else ""
        if isinstance(logits, Mapping):
            inside = f" with {enumerated([str(key) for key in logits])}" if logits else " of 0"
        raise WrongOutput(
            f"{subject} returns {article} {kind}{inside}; expected one tensor of logits "
            "(N, K, H, W)."
        )
    if logits.ndim != 4:
        advice = ", without argmax" if logits.ndim == 3 else ""
        raise WrongOutput(
            f"{subject} returns {tuple(logits.shape)}; expected logits (N, K, H, W){advice}."
        )
    if not logits.is_floating_point():
        raise WrongOutput(f"{subject} returns {logits.dtype}; expected logits of a float type.")
    if logits.shape[1] != num_classes and logits.shape[3] == num_classes:
        raise WrongOutput(
            f"{subject} returns {tuple(logits.shape)}, which seems to be (N, H, W, K); expected "
            "logits (N, K, H, W), as permute(0, 3, 1, 2) makes them."
        )
    if logits.shape[1] != num_classes:
        raise WrongOutput(
            f"{subject} returns {logits.shape[1]} classes, but the dataset has {num_classes}."
        )
    return logits


def without_values(
    spec: ModelSpec, num_classes: int, run: Callable[[nn.Module, torch.device], T]
) -> T:
    """Run something on the bare network without memory or arithmetic: on the meta device.

    A network that needs values runs on the CPU. A user's own network may also make tensors in
    `forward` that are not on the meta device; it is tried on the CPU without values before.
    """
    is_own = ":" in spec.arch
    try:
        return run(_on_meta(spec, num_classes), torch.device("meta"))
    except WrongOutput:
        raise  # it would be the same elsewhere
    except RUN_ERRORS as error:
        if not is_own and not needs_values(error):
            raise
    if is_own:
        with (
            suppress(*RUN_ERRORS),
            _silent(),
            FakeTensorMode(allow_non_fake_inputs=True),
        ):
            return run(build_network(spec, num_classes), torch.device("cpu"))
    return run(build_network(spec, num_classes), torch.device("cpu"))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep torch from logging the traceback of each error on tensors without values."""
    before = FAKE_LOG.disabled
    FAKE_LOG.disabled = True
    try:
        yield
    finally:
        FAKE_LOG.disabled = before


def _on_meta(spec: ModelSpec, num_classes: int) -> nn.Module:
    try:
        with torch.device("meta"):
            return build_network(spec, num_classes)
    except RUN_ERRORS as error:
        if ":" not in spec.arch and not needs_values(error):
            raise
    return build_network(spec, num_classes).to("meta")


def require_one_device(spec: ModelSpec, num_classes: int, size: Size) -> None:
    """Check that a user's own network makes no tensors on the CPU if its input is elsewhere.

    Raises:
        UserError: with the line that mixes devices.
    """
    if ":" not in spec.arch:
        return
    try:
        with _silent(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            net = _moved(build_network(spec, num_classes), torch.device("cuda")).eval()
            net(torch.zeros(1, 3, *size, device="cuda"))
    except RUN_ERRORS as error:
        if mixes_devices(error):
            raise UserError(f"{spec.arch} does not run on a GPU: {said(error)}") from error


def _moved(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a network without values, which torch's own `to` cannot."""
    for module in net.modules():
        for name, weight in module.named_parameters(recurse=False):
            moved = nn.Parameter(weight.detach().to(device), weight.requires_grad)
            setattr(module, name, moved)
        for name, value in module.named_buffers(recurse=False):
            setattr(module, name, value.to(device))
    return net


def gives_probabilities(spec: ModelSpec, num_classes: int, geometry: Geometry) -> bool:
    """Whether a network seems to end in a softmax or sigmoid, where logits are expected.

    It runs on the CPU, on a small random image and on one of high contrast.
    """
    side = geometry.padded(SMALL_SIZES[0])
    net = build_network(spec, num_classes).eval()
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            plain, strong = net(image), net(100 * image)
    except RUN_ERRORS:
        return False  # it fails elsewhere, with a message
    if not ((plain > 0) & (plain < 1)).all() or not ((strong >= 0) & (strong <= 1)).all():
        return False
    sums = plain.sum(1), strong.sum(1)
    is_softmax = all(torch.allclose(one, torch.ones_like(one), atol=1e-3) for one in sums)
    saturates = bool((strong < 1e-3).any() and (strong > 1 - 1e-3).any())
    return bool(plain.std() > 0) and (is_softmax or saturates)
