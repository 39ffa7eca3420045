"""A trace of one run of a network: its modules, and the operations inside each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.report.layers.operations import DROPOUT, FOLLOWERS, READERS, Layer, Value


@dataclass(frozen=True)
class Op:
    """One operation: a layer, a follower of a layer (such as an activation), or neither.

    weights: storage keys of the inputs that do not descend from the image.
    """

    module: "Call"
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    layer: Layer | None = None
    follower: str = ""
    weights: tuple[int, ...] = ()


@dataclass
class Call:
    """One run of a module, and what ran inside it, in order of execution."""

    path: str
    module: nn.Module
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    parts: list["Op | Call"] = field(default_factory=list)


def trace(net: nn.Module, image: Tensor) -> Call:
    """Run a network once in eval mode and return the trace."""
    net.eval()
    with torch.no_grad(), Trace(net, image) as mode:
        net(image)
    [call] = (part for part in mode.root.parts if isinstance(part, Call))
    return call


class Trace(TorchDispatchMode):
    """Record every operation on tensors that descend from an image, module by module.

    Operations are recorded when torch dispatches them to a device, so it does not matter whether a
    module, a function or an operator called them.
    """

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        TorchDispatchMode.__init__(self)
        self.root = Call("", net)
        self.stack = [self.root]
        self.alive = {_key(image)}
        self.fixed: set[int] = set()  # maps whose size does not depend on the image size
        self.held = [image]  # kept alive: the key of a freed storage can be reused
        for path, module in net.named_modules():
            module.register_forward_pre_hook(partial(self._enter, path), with_kwargs=True)
            module.register_forward_hook(self._leave)

    def _enter(self, path: str, module: nn.Module, args: object, kwargs: object) -> None:
        call = Call(path, module, inputs=self._values((args, kwargs)))
        self.stack[-1].parts.append(call)
        self.stack.append(call)

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        call = self.stack.pop()
        call.outputs = self._values(output)
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:  # eval mode skips it
            op = Op(call, call.outputs, call.outputs, follower=f"{DROPOUT} {module.p:g}")
            call.parts.append(op)

    def _values(self, tree: object) -> tuple[Value, ...]:
        """List the feature maps that a module takes or returns, but not max-pool indices."""
        tensors = [t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.is_floating_point()]
        values = [Value(_key(t), tuple(t.shape)) for t in tensors]
        return tuple(dict.fromkeys(value for value in values if value.key in self.alive))

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        inputs = tuple(Value(_key(t), tuple(t.shape)) for t in given if _key(t) in self.alive)
        if inputs and made:
            outputs = tuple(Value(_key(t), tuple(t.shape)) for t in made)
            names = [argument.name for argument in func._schema.arguments]
            arguments = {a.name: a.default_value for a in func._schema.arguments}
            arguments |= dict(zip(names, args, strict=False)) | kwargs
            name = func._schema.name.split("::")[1].strip("_")
            weights = tuple(_key(t) for t in given if _key(t) not in self.alive)
            self._record(name, arguments, inputs, outputs, weights)
            self.held += [*given, *made]
            self.alive |= {value.key for value in outputs}
        return output

    def _record(
        self,
        name: str,
        arguments: Mapping[str, Any],
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        weights: tuple[int, ...],
    ) -> None:
        x, out = inputs[0], outputs[0]
        layer = READERS[name](arguments, inputs, out) if name in READERS else None
        if x.key in self.fixed:
            if layer is not None and layer.short == "upsample":
                layer = Layer(layer.type, layer.short)  # the ratio differs for other image sizes
            elif x.shape[2:] == out.shape[2:]:
                self.fixed.add(out.key)
        if layer is not None and layer.kernel.startswith(("global", "to ")):
            self.fixed.add(out.key)
        follower = next((text for key, text in FOLLOWERS.items() if name.startswith(key)), "")
        module = self.stack[-1]
        module.parts.append(Op(module, inputs, outputs, layer, follower, weights))


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
