"""Models by name: smp/…, custom/…, package.module:attribute; their weights and input rules."""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from bench.errors import UserError
from bench.lookup import pick, resolve, unknown
from bench.suite import ModelSpec, Normalize
from bench.weights import load_encoder, load_model, read_weights

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DPN = Normalize(
    mean=(124 / 255, 117 / 255, 104 / 255), std=(0.0167**-1 / 255,) * 3
)  # Chen et al. 2017, arXiv 1707.01629
# smp's own encoders whose pretrained weights expect something else than ImageNet's mean and std;
# smp's get_preprocessing_params would ask the hub.
ENCODER_NORMALIZE = {
    "inceptionresnetv2": HALF,
    "inceptionv4": HALF,
    "xception": HALF,
    **dict.fromkeys(("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131"), DPN),
}
T = TypeVar("T")
BUILD_ERRORS = (TypeError, ValueError, LookupError, AssertionError, AttributeError, RuntimeError)
RUN_ERRORS = (*BUILD_ERRORS, NotImplementedError)
SMP_RESERVED = {
    "encoder_name": "encoder:",
    "encoder_weights": "weights:",
    "classes": "the dataset",
    "in_channels": "nothing (images are RGB)",
    "activation": "nothing (logits are needed)",
    "aux_params": "nothing (images are not classified)",
}
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
SMALL_SIZES = (32, 64, 96, 128)  # no smaller image is worth running


@dataclass(frozen=True)
class InputRule:
    """The heights and widths that a network takes: multiples, from a minimum on."""

    multiple: int
    minimum: int

    def padded(self, size: int) -> int:
        """Return the smallest height or width that is taken and not below `size`."""
        return max(self.minimum, size + -size % self.multiple)


class Segmenter(nn.Module):
    """A network behind its input rule: normalise, pad to sizes that it takes, crop the logits.

    Args:
        net: maps normalised (N, 3, H, W) to logits (N, K, H, W) where `rule` allows H and W.
    """

    def __init__(self, net: nn.Module, normalize: Normalize | None, rule: InputRule) -> None:
        super().__init__()
        self.net = net
        self.rule = rule
        mean, std = (normalize.mean, normalize.std) if normalize else ((0.0,) * 3, (1.0,) * 3)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(shape), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 images (N, 3, H, W) to logits (N, K, H, W)."""
        height, width = image.shape[-2:]
        x = (image.float() - cast("Tensor", self.mean)) / cast("Tensor", self.std)
        below, right = self.rule.padded(height) - height, self.rule.padded(width) - width
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        logits: Tensor = self.net(x)
        return logits[..., :height, :width]


def build_model(spec: ModelSpec, num_classes: int) -> tuple[Segmenter, dict[str, Any]]:
    """Build a model with its weights.

    Returns:
        The model, and what was done for the record: source and part of the weights, keys of the
        file that had no place, normalisation, input multiple.

    Raises:
        UserError: for options or weights that do not fit.
    """
    net = build_network(spec, num_classes, download=True)
    unused: tuple[str, ...] = ()
    weights = spec.weights
    if weights is not None and weights.file is not None:
        state = read_weights(weights.file)
        if weights.part == "model":
            load_model(net, state, weights.source)
        else:
            unused = load_encoder(net, state, weights.source)
    normalize = normalization(spec)
    rule = input_rule(net, spec, num_classes)
    done = {
        "weights": weights and f"{weights.part}: {Path(weights.source).name}",
        "unused_keys": unused,
        "mean": normalize and normalize.mean,
        "std": normalize and normalize.std,
        "input_multiple": rule.multiple,
        "input_minimum": rule.minimum,
    }
    return Segmenter(net, normalize, rule), done


def build_network(spec: ModelSpec, num_classes: int, download: bool = False) -> nn.Module:
    """Build the bare network, at random unless `download` allows weights by name."""
    kind, _, name = spec.arch.partition("/")
    if ":" in spec.arch:
        builder = cast("Callable[..., Any]", resolve(spec.arch))
    else:
        builder = pick("kind of model", kind, BUILDERS)(name)
    options = spec.options
    if spec.encoder is not None:
        options["encoder"] = spec.encoder
    named = spec.weights is not None and spec.weights.file is None
    if spec.weights is not None and named and download:
        options["pretrained"] = spec.weights.source
    try:
        net = builder(num_classes, **options)
    except BUILD_ERRORS as error:
        if needs_values(error):
            raise
        raise UserError(f"{spec.arch} does not build: {first_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise UserError(f"{spec.arch} gave {type(net).__name__}, not an nn.Module.")
    return net


def _smp(name: str) -> Callable[..., nn.Module]:
    def build(
        num_classes: int, encoder: str, pretrained: str | None = None, **options: Any
    ) -> nn.Module:
        _check_smp_options(name, encoder, options)
        weights: Any = pretrained
        if pretrained is not None and encoder.startswith("tu-"):
            encoder, weights = _tagged(encoder, pretrained), True
        try:
            net: nn.Module = smp.create_model(
                name, encoder, weights, classes=num_classes, **options
            )
        except (OSError, ValueError, RuntimeError, HfHubHTTPError) as error:
            if pretrained is None or "Invalid pretrained tag" in str(error):
                raise
            raise UserError(
                f"Cannot download the weights {pretrained!r} of {encoder}: {first_line(error)} "
                "Offline, give a file: weights: path/to/file.safetensors."
            ) from error
        return net

    return build


def _check_smp_options(name: str, encoder: str, options: Mapping[str, Any]) -> None:
    """Refuse what smp would swallow: it hands unknown options on, and its encoders ignore them."""
    known = set(inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[name]).parameters)
    known -= {"kwargs", *SMP_RESERVED}
    for option in options:
        if option in SMP_RESERVED:
            raise UserError(f"smp/{name}: {option} is set by {SMP_RESERVED[option]}.")
        if option not in known and not encoder.startswith("tu-"):  # timm checks its own
            raise UserError(f"smp/{name}: {unknown('option', option, known)}")


def _tagged(encoder: str, weights: str) -> str:
    """Name a timm encoder with the tag of its weights; "imagenet" is timm's default."""
    return encoder if weights == "imagenet" else f"{encoder}.{weights}"


def _custom(name: str) -> Callable[..., nn.Module]:
    module = importlib.import_module(f"custom_models.{name}")
    return cast("Callable[..., nn.Module]", module.build)


BUILDERS: dict[str, Callable[[str], Callable[..., nn.Module]]] = {"smp": _smp, "custom": _custom}


def normalization(spec: ModelSpec) -> Normalize | None:
    """Return the mean and std that inputs are normalised by, in 0..1."""
    if isinstance(spec.normalize, Normalize):
        return spec.normalize
    if spec.normalize == "none":
        return None
    if spec.normalize == "auto" and spec.encoder is not None:
        if spec.encoder.startswith("tu-"):
            tag = spec.weights.source if spec.weights and spec.weights.file is None else "imagenet"
            config = timm.get_pretrained_cfg(_tagged(spec.encoder.removeprefix("tu-"), tag))
            if config is not None:
                return Normalize(mean=tuple(config.mean), std=tuple(config.std))
        return ENCODER_NORMALIZE.get(spec.encoder, IMAGENET)
    return IMAGENET


def input_rule(net: nn.Module, spec: ModelSpec, num_classes: int) -> InputRule:
    """Return the sizes that a network takes: as it declares them, else found by probing.

    Raises:
        UserError: where no multiple up to 64 works.
    """
    declared = getattr(net, "input_multiple", None)
    if isinstance(declared, int):
        return InputRule(declared, declared)
    return without_values(
        spec, num_classes, lambda probe, device: _probe(probe.eval(), spec, num_classes, device)
    )


def _probe(net: nn.Module, spec: ModelSpec, num_classes: int, device: torch.device) -> InputRule:
    def problem(height: int, width: int) -> str:
        try:
            with torch.no_grad():
                logits = net(torch.zeros(1, 3, height, width, device=device))
            check_logits(logits, (1, num_classes, height, width))
        except (UserError, *RUN_ERRORS) as error:
            if needs_values(error):
                raise
            return first_line(error)
        return ""

    for multiple in MULTIPLES:
        # Odd multiples of at least 128 pixels: no larger power of two divides them.
        height, width = (multiple * (2 * math.ceil(n / multiple / 2) + 1) for n in (128, 160))
        if not problem(height, width):
            minima = [n for n in SMALL_SIZES if n % multiple == 0]
            return InputRule(multiple, next((n for n in minima if not problem(n, n)), height))
    raise UserError(
        f"{spec.arch} runs at no size that was tried, up to multiples of {MULTIPLES[-1]}: "
        f"{problem(height, width)}"
    )


def check_logits(logits: object, shape: tuple[int, ...]) -> None:
    """Refuse what is no tensor of logits of a shape (N, K, H, W).

    Raises:
        UserError: saying what a network gave instead.
    """
    if not isinstance(logits, Tensor):
        raise UserError(f"It gives a {type(logits).__name__}, not a tensor of logits.")
    if logits.shape != shape:
        raise UserError(f"It gives logits {tuple(logits.shape)}, not {shape}.")


def without_values(
    spec: ModelSpec, num_classes: int, run: Callable[[nn.Module, torch.device], T]
) -> T:
    """Run something on the bare network without memory or arithmetic, on the meta device.

    A network that needs values runs on the CPU.
    """
    try:
        try:
            with torch.device("meta"):
                net = build_network(spec, num_classes)
        except RUN_ERRORS as error:
            if not needs_values(error):
                raise
            net = build_network(spec, num_classes).to("meta")
        return run(net, torch.device("meta"))
    except RUN_ERRORS as error:
        if not needs_values(error):
            raise
    return run(build_network(spec, num_classes), torch.device("cpu"))


def needs_values(error: BaseException) -> bool:
    """Say whether an error means that the meta device, which has no values, was not enough."""
    return isinstance(error, NotImplementedError) or "meta tensor" in str(error)


def first_line(error: BaseException) -> str:
    """Return an error's text on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:300] + "…"
