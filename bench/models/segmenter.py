"""Models: networks with their weights, normalisation, padding, memory format and compilation."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.machine.numerics import CompileMode, MemoryFormat
from bench.models.compiling import RUNS, Forward, compiled, left_as_it_was, named_break
from bench.models.geometry import Geometry
from bench.models.networks import (
    build_network,
    find_encoder,
    tagged,
)
from bench.models.probing import find_geometry
from bench.models.weight_files import read_weights
from bench.models.weights import load_encoder, load_model
from bench.suite.model import ModelSpec, Normalize
from custom_models.initialisation import INITS

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
HALF = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DPN = Normalize(
    mean=(124 / 255, 117 / 255, 104 / 255), std=(0.0167**-1 / 255,) * 3
)  # Chen et al. 2017, arXiv 1707.01629
# smp's own encoders whose pretrained weights expect another mean and std than ImageNet's;
# smp's get_preprocessing_params would query the hub.
ENCODER_NORMALIZE = {
    "inceptionresnetv2": HALF,
    "inceptionv4": HALF,
    "xception": HALF,
    **dict.fromkeys(("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131"), DPN),
}
Heads = Mapping[str, Tensor]  # logits by head: "out", and auxiliary ones in training


class Segmenter(nn.Module):
    """A network that takes any image: normalise, pad to an allowed size, crop the logits.

    Args:
        net: maps normalised (N, 3, H, W) to logits (N, K, H, W) if `geometry` allows H and W. In
            training it may return {"out": logits, …} with the logits of auxiliary heads.
    """

    def __init__(self, net: nn.Module, normalize: Normalize | None, geometry: Geometry) -> None:
        super().__init__()
        self.net = net
        self.geometry = geometry
        self.frozen: tuple[nn.Module, ...] = ()  # a tuple, to stay out of the state dict
        self.layout = torch.contiguous_format
        self.compiled: Forward | None = None
        self.prepared: set[tuple[bool, torch.Size]] = set()  # what runs compiled
        mean, std = (normalize.mean, normalize.std) if normalize else ((0.0,) * 3, (1.0,) * 3)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(shape), persistent=False)

    def freeze_encoder(self) -> None:
        """Freeze the weights and the BatchNorm statistics of the encoder.

        Raises:
            UserError: if the network has no encoder.
        """
        encoder = find_encoder(self.net, "freeze_encoder")
        encoder.requires_grad_(False)
        self.frozen = (encoder,)

    def train(self, mode: bool = True) -> "Segmenter":
        """Switch to training or evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def lay_out(self, memory_format: MemoryFormat) -> "Segmenter":
        """Store the weights, and from now on the images, in a memory format."""
        self.layout = LAYOUTS[memory_format]
        if memory_format != "contiguous":
            self.net.to(memory_format=self.layout)
        return self

    def compile_for(
        self, mode: CompileMode, image: Tensor, run: Callable[[Tensor], object], name: str
    ) -> None:
        """Compile the pass over images of one shape, in the present mode of the module.

        Passes over other shapes run as they are written. Nothing of the model changes.

        Args:
            image: (N, 3, H, W) uint8 on the device.
            run: what is done with an image, such as a forward and a backward pass.
            name: of the network, for messages.

        Raises:
            UserError: if the network cannot be compiled as one graph.
        """
        key = self.training, image.shape
        if key in self.prepared:
            return
        if self.compiled is None:
            self.compiled = compiled(self._logits, mode)
        self.prepared.add(key)
        with left_as_it_was(self.net, image.device), named_break(name):
            for _ in range(RUNS):
                run(image)

    def forward(self, image: Tensor) -> Tensor | Heads:
        """Map uint8 images (N, 3, H, W) to logits (N, K, H, W).

        In training, return the logits of all heads, as coarse as the network computes them.
        """
        if self.compiled is None or (self.training, image.shape) not in self.prepared:
            return self._logits(image)
        torch.compiler.cudagraph_mark_step_begin()
        logits: Tensor | Heads = self.compiled(image)
        return logits

    def _logits(self, image: Tensor) -> Tensor | Heads:
        height, width = image.shape[-2:]
        image = image.contiguous(memory_format=self.layout)
        x = (image - cast("Tensor", self.mean)).div_(cast("Tensor", self.std))
        output: Tensor | Heads = self.net(self.geometry.fit(x))
        if isinstance(output, Tensor):
            return self.geometry.cut(output, height, width, coarse=self.training)
        return {
            name: self.geometry.cut(head, height, width, coarse=self.training)
            for name, head in output.items()
        }


def build_model(spec: ModelSpec, num_classes: int) -> tuple[Segmenter, dict[str, Any]]:
    """Build a model with its weights.

    Returns:
        The model, and facts for the record: source and part of the weights, keys of the file that
        were not used, normalisation, input multiple.

    Raises:
        UserError: for options or weights that do not fit.
    """
    if spec.weights is not None and spec.weights.is_missing:
        raise UserError(spec.weights.missing_message)
    net = build_network(spec, num_classes, download=True)
    unused: tuple[str, ...] = ()
    weights = spec.weights
    if spec.init is not None:
        _initialise(net, spec)
    if weights is not None and weights.file is not None:
        state = read_weights(weights.file)
        if weights.part == "model":
            load_model(net, state, weights.source, num_classes)
        else:
            unused = load_encoder(net, state, weights.source)
    normalize = normalization(spec)
    geometry = find_geometry(net, spec, num_classes)
    facts = {
        "weights": weights and f"{weights.part}: {Path(weights.source).name}",
        "unused_keys": unused,
        "mean": normalize and normalize.mean,
        "std": normalize and normalize.std,
        "input_multiple": geometry.multiple,
        "input_minimum": geometry.minimum,
    }
    return Segmenter(net, normalize, geometry), facts


def _initialise(net: nn.Module, spec: ModelSpec) -> None:
    """Initialise the weights in the way that was asked for, except those that were downloaded."""
    assert spec.init is not None
    initialise = INITS[spec.init]
    if spec.weights is None or not spec.weights.by_name or not hasattr(net, "encoder"):
        return initialise(net)
    assert isinstance(net.encoder, nn.Module)
    downloaded = copy.deepcopy(net.encoder.state_dict())
    initialise(net)
    net.encoder.load_state_dict(downloaded)


def normalization(spec: ModelSpec) -> Normalize | None:
    """Return the mean and std that normalise inputs, in 0..1; None for no normalisation."""
    if isinstance(spec.normalize, Normalize):
        return spec.normalize
    if spec.normalize == "none":
        return None
    if spec.normalize == "imagenet":
        return IMAGENET
    return _timm_normalization(spec) or ENCODER_NORMALIZE.get(spec.encoder or "", IMAGENET)


def _timm_normalization(spec: ModelSpec) -> Normalize | None:
    """Return what the pretrained weights of a timm network expect; None for other networks."""
    kind, _, name = spec.arch.partition("/")
    if kind != "timm":
        name = spec.encoder or ""
        if not name.startswith("tu-") and kind != "custom":
            return None
    tag = spec.weights.source if spec.weights and spec.weights.by_name else "imagenet"
    config = timm.get_pretrained_cfg(tagged(name.removeprefix("tu-"), tag))
    if config is None:
        return None
    return Normalize(mean=tuple(config.mean), std=tuple(config.std))
