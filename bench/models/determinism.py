"""Which operations of a network a GPU cannot repeat exactly; found without a GPU."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.models.complexity import backward
from bench.models.geometry import Geometry
from bench.models.probing import without_values
from bench.suite.model import ModelSpec
from bench.suite.schema import Size

# As documented for torch.use_deterministic_algorithms; `interpolate` has its own way around.
UNREPEATABLE = {
    "_adaptive_avg_pool2d_backward": "adaptive average pooling",
    "_adaptive_avg_pool3d_backward": "adaptive average pooling",
    "adaptive_max_pool2d_backward": "adaptive max pooling",
    "adaptive_max_pool3d_backward": "adaptive max pooling",
    "avg_pool3d_backward": "3-d average pooling",
    "fractional_max_pool2d_backward": "fractional max pooling",
    "fractional_max_pool3d_backward": "fractional max pooling",
    "max_unpool2d": "max unpooling",
    "max_unpool3d": "max unpooling",
    "reflection_pad1d_backward": "reflection padding",
    "reflection_pad2d_backward": "reflection padding",
    "reflection_pad3d_backward": "reflection padding",
    "grid_sampler_2d_backward": "grid_sample",
    "grid_sampler_3d_backward": "grid_sample",
    "_upsample_bilinear2d_aa_backward": "interpolation with antialias",
    "_upsample_bicubic2d_aa_backward": "interpolation with antialias",
    "histc": "histc",
    "put_": "put_",
}


class _Operations(TorchDispatchMode):
    """Notes the names of all operations that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] = None
        return func(*args, **(kwargs or {}))


def unrepeatable(
    spec: ModelSpec, num_classes: int, size: Size, geometry: Geometry, micro_batch: int
) -> list[str]:
    """Name what a training step does that has no deterministic form on a GPU."""
    padded = geometry.padded(size[0]), geometry.padded(size[1])

    def step(net: nn.Module, device: torch.device) -> list[str]:
        with _Operations() as operations:
            backward(net.train()(torch.zeros(micro_batch, 3, *padded, device=device)))
        names = (UNREPEATABLE[name] for name in operations.names if name in UNREPEATABLE)
        return list(dict.fromkeys(names))

    return without_values(spec, num_classes, step)
