"""What a network costs: parameters, bytes, multiply-accumulates."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, shape_wrapper

from bench.errors import UserError
from bench.models.counts import Complexity
from bench.models.geometry import Geometry
from bench.models.networks import RUN_ERRORS, find_encoder, needs_values, said
from bench.models.probing import WrongOutput, check_heads, check_logits, without_values
from bench.models.segmenter import Heads
from bench.suite.model import ModelSpec
from bench.suite.schema import Size
from bench.text import plural

Shape = Sequence[int]
MORE_IMAGES = " (More than one may work: raise batch_size or lower accumulate.)"


def _of_conv_backward(
    grad_shape: Shape,
    image_shape: Shape,
    weight_shape: Shape,
    *options: Any,
    out_shape: Any,
    **more: Any,
) -> int:
    """Count the backward pass of a convolution; torch's own count ignores groups.

    Each gradient, of the image and of the weights, takes as many operations as the forward pass.
    """
    transposed, output_mask = options[4], options[7]
    batch, _, *sides = image_shape if transposed else grad_shape
    forward = 2 * batch * math.prod(sides) * math.prod(weight_shape)
    return int(forward * sum(output_mask[:2]))


OPERATIONS: dict[object, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: shape_wrapper(_of_conv_backward),
}


class Operations(TorchDispatchMode):
    """Counts the operations of forward and backward passes while it is active.

    torch's FlopCounterMode also follows modules, and refuses those with a part under no_grad.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it."""
        out = func(*args, **kwargs or {})
        count = OPERATIONS.get(func.overloadpacket)
        if count is not None:
            self.num += count(*args, **kwargs or {}, out_val=out)
        return out


_counted: dict[object, Complexity] = {}


def complexity(
    spec: ModelSpec,
    num_classes: int,
    size: Size,
    geometry: Geometry,
    micro_batch: int,
    freeze_encoder: bool = False,
) -> Complexity:
    """Count a network's parameters and operations, and check that one training step runs.

    This takes seconds, so a process does it once for equal arguments, except for users' own
    networks, whose code may change.

    Raises:
        UserError: if the network cannot train on micro-batches of this size (such as BatchNorm
            over a 1x1 map of one image), does not run at all, or has no encoder to freeze.
    """
    asked = num_classes, size, geometry, micro_batch, freeze_encoder
    if ":" in spec.arch:
        return _count(spec, *asked)
    # A deterministic ENet runs other operations.
    key = spec.model_dump_json(), asked, torch.are_deterministic_algorithms_enabled()
    if key not in _counted:
        _counted[key] = _count(spec, *asked)
    return _counted[key]


def _count(
    spec: ModelSpec,
    num_classes: int,
    size: Size,
    geometry: Geometry,
    micro_batch: int,
    freeze_encoder: bool,
) -> Complexity:
    padded = geometry.padded(size[0]), geometry.padded(size[1])
    given = geometry.logits_size(padded[0]), geometry.logits_size(padded[1])

    def count(net: nn.Module, device: torch.device) -> Complexity:
        if freeze_encoder:
            find_encoder(net, "freeze_encoder").requires_grad_(False)
        params = list(net.parameters())
        trainable = [p for p in params if p.requires_grad]
        try:
            gmacs, logits = forward_gmacs(net.eval(), padded, device)
            check_logits(logits, (1, num_classes, *given), spec.arch)
        except WrongOutput:
            raise
        except (UserError, *RUN_ERRORS) as error:
            if device.type == "meta" and needs_values(error):
                raise
            raise UserError(
                f"{spec.arch} fails at {padded[0]}x{padded[1]}: {said(error)}"
            ) from error
        net.train()
        try:
            with Operations() as operations:
                output = net(torch.zeros(micro_batch, 3, *padded, device=device))
                check_heads(output, (micro_batch, num_classes, *given), spec.arch)
                backward(output)
        except WrongOutput:
            raise
        except (UserError, *RUN_ERRORS) as error:
            if device.type == "meta" and needs_values(error):
                raise
            advice = MORE_IMAGES if micro_batch == 1 else ""
            raise UserError(
                f"{spec.arch} cannot train on {plural(micro_batch, 'image')} of "
                f"{padded[0]}x{padded[1]} at once: {said(error)}{advice}"
            ) from error
        return Complexity(
            num_params=sum(p.numel() for p in params),
            num_trainable=sum(p.numel() for p in trainable),
            num_unreached=sum(p.numel() for p in trainable if p.grad is None),
            model_bytes=state_bytes(net.state_dict()),
            gmacs=gmacs,
            size=size,
            shapes=_shapes(net),
            train_gflops=operations.num / micro_batch / 1e9,
        )

    return without_values(spec, num_classes, count)


def _shapes(net: nn.Module) -> str:
    listed = sorted(
        f"{name} {tuple(value.shape)}"
        for name, value in net.state_dict().items()
        if isinstance(value, Tensor)
    )
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


@torch.no_grad()
def forward_gmacs(net: nn.Module, size: Size, device: torch.device) -> tuple[float, object]:
    """Count the multiply-accumulates / 10^9 of one image; return the network's output, too."""
    with FlopCounterMode(display=False) as flops:
        output = net(torch.zeros(1, 3, *size, device=device))
    return flops.get_total_flops() / 2e9, output


def backward(output: Tensor | Heads) -> None:
    """Give a gradient to every parameter that the logits of any head depend on."""
    heads = output.values() if isinstance(output, Mapping) else [output]
    torch.stack([head.sum() for head in heads]).sum().backward()


def state_bytes(state: Mapping[Any, Any]) -> int:
    """Add up the bytes of the tensors in a nested state dict."""
    total = 0
    for value in state.values():
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, Mapping):
            total += state_bytes(value)
    return total
