"""Build bare networks by name: smp/…, timm/…, torchvision/…, custom/…, package.module:attribute."""

import importlib
import inspect
import re
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision.models.segmentation as segmentation
from huggingface_hub.errors import HfHubHTTPError
from pydantic import ValidationError, validate_call
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from bench.errors import UserError
from bench.lookup import pick, resolve, unknown
from bench.suite.model import ModelSpec
from bench.text import first_line
from custom_models import ARCHITECTURES
from custom_models.encoder import timm_encoder

RUN_ERRORS = (Exception, SystemExit)  # users' code raises anything
SMP_RESERVED = {
    "encoder_name": "is set by encoder:",
    "encoder_weights": "is set by weights:",
    "classes": "is the dataset's number of classes",
    "in_channels": "is always 3: images are RGB",
    "activation": "cannot be set: losses and scores need logits",
    "aux_params": "cannot be set: images are not classified",
}
NOT_OWN = (  # the beginnings of files that are no user's own code
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    *(str(Path(__file__).parents[2] / package) for package in ("bench", "custom_models")),
    "<",
)
Builder = Callable[..., nn.Module]


def build_network(spec: ModelSpec, num_classes: int, download: bool = False) -> nn.Module:
    """Build the bare network, with random weights unless `download` allows weights by name.

    Raises:
        UserError: for options that do not fit, or weights that cannot be downloaded.
    """
    kind, _, name = spec.arch.partition("/")
    if ":" in spec.arch:
        builder = cast("Builder", resolve(spec.arch))
    else:
        builder = pick("kind of model", kind, BUILDERS)(name)
    options = spec.options
    if "pretrained" in options and ":" not in spec.arch:
        raise UserError(f"{spec.arch}: pretrained is set by weights:.")
    if spec.encoder is not None:
        options["encoder"] = spec.encoder
    named = spec.weights.source if spec.weights and spec.weights.by_name else None
    if named is not None:
        _check_named_weights(spec.arch, named)
        if download:
            options["pretrained"] = named
    try:
        net = builder(num_classes, **options)
    except (OSError, HfHubHTTPError) as error:
        if named is None:
            raise
        raise _no_download(named, spec.arch, error) from error
    except UserError:
        raise
    except RUN_ERRORS as error:
        if torch.get_default_device().type == "meta" and needs_values(error):
            raise
        raise UserError(f"{spec.arch} does not build: {said(error)}") from error
    if not isinstance(net, nn.Module):
        raise UserError(f"{spec.arch} returned {type(net).__name__}; expected an nn.Module.")
    return net


def _check_named_weights(arch: str, name: str) -> None:
    """Reject unknown names of weights before anything is downloaded."""
    kind, _, network = arch.partition("/")
    if kind == "torchvision":
        known: tuple[str, ...] | None = ("imagenet",)
    elif kind == "custom":
        known = _named_weights(_module(network).build)
    else:
        return  # the library, or the user's own network, checks the name
    if known == ():
        raise UserError(
            f"{arch} has no weights to download, such as {name!r}; give a file or null."
        )
    if known is not None and name not in known:
        raise UserError(f"{arch}: {unknown('weights', name, known)}")


def _named_weights(build: Builder) -> tuple[str, ...] | None:
    """Read which names `pretrained` takes from a builder's annotations; None for any."""
    choices = get_args(get_type_hints(build).get("pretrained"))
    if str in choices:
        return None
    return tuple(name for choice in choices for name in get_args(choice))


def _smp(name: str) -> Builder:
    def build(
        num_classes: int, encoder: str, pretrained: str | None = None, **options: Any
    ) -> nn.Module:
        _check_smp_options(name, encoder, options)
        weights: Any = pretrained
        if pretrained is not None and encoder.startswith("tu-"):
            encoder, weights = tagged(encoder, pretrained), True
        try:
            net: nn.Module = smp.create_model(
                name, encoder, weights, classes=num_classes, **options
            )
        except (ValueError, RuntimeError) as error:
            if pretrained is None or "Invalid pretrained tag" in str(error):
                raise
            raise _no_download(pretrained, encoder, error) from error
        return net

    return build


def _check_smp_options(name: str, encoder: str, options: Mapping[str, Any]) -> None:
    """Reject unknown options: smp passes them on, and its encoders ignore them."""
    known = set(inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[name]).parameters)
    known -= {"kwargs", *SMP_RESERVED}
    for option in options:
        if option in SMP_RESERVED:
            raise UserError(f"smp/{name}: {option} {SMP_RESERVED[option]}.")
        if option not in known and not encoder.startswith("tu-"):  # timm checks its own
            raise UserError(f"smp/{name}: {unknown('option', option, known)}")


class TimmFCN(nn.Module):
    """torchvision's FCN head on the last features of a timm network, upsampled bilinearly."""

    def __init__(
        self, name: str, num_classes: int, pretrained: str | None, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.encoder = timm_encoder(name, pretrained, out_indices=(-1,), **options)
        [channels] = self.encoder.feature_info.channels()
        self.head = FCNHead(channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, K, H, W)."""
        [x] = self.encoder(image)
        if getattr(self.encoder, "output_fmt", "NCHW") == "NHWC":
            x = x.permute(0, 3, 1, 2)
        return F.interpolate(self.head(x), image.shape[-2:], mode="bilinear", align_corners=False)


def _timm(name: str) -> Builder:
    def build(num_classes: int, pretrained: str | None = None, **options: Any) -> nn.Module:
        return TimmFCN(name, num_classes, pretrained, options)

    return build


class TorchvisionNet(nn.Module):
    """A segmentation network of torchvision; its auxiliary head runs only in training.

    The state dict has torchvision's own keys, so that its weight files fit.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = net.backbone
        self.classifier: Any = net.classifier
        self.aux_classifier = getattr(net, "aux_classifier", None)
        self.takes_all = isinstance(net, segmentation.LRASPP)  # the head takes all features

    @property
    def encoder(self) -> nn.Module:
        """The part that ImageNet weights fill."""
        return cast("nn.Module", self.backbone)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Map (N, 3, H, W) to logits (N, K, H, W), in training also those of an auxiliary head."""
        features = self.encoder(image)
        heads = {"out": self.classifier(features if self.takes_all else features["out"])}
        if self.aux_classifier is not None and self.training:
            heads["aux"] = self.aux_classifier(features["aux"])
        size = image.shape[-2:]
        sized = {
            name: F.interpolate(logits, size, mode="bilinear", align_corners=False)
            for name, logits in heads.items()
        }
        return sized if "aux" in sized else sized["out"]


def _torchvision(name: str) -> Builder:
    def build(num_classes: int, pretrained: str | None = None, **options: Any) -> nn.Module:
        for option, value in options.items():
            if option != "aux_loss":
                raise UserError(f"torchvision/{name}: {unknown('option', option, ['aux_loss'])}")
            if not isinstance(value, bool):
                raise UserError(f"torchvision/{name}: aux_loss is true or false, not {value!r}.")
        try:
            net = getattr(segmentation, name)(
                weights=None,
                weights_backbone="DEFAULT" if pretrained else None,
                num_classes=num_classes,
                **options,
            )
        except NotImplementedError as error:  # this network cannot have an auxiliary head
            raise UserError(f"torchvision/{name}: {error}.") from error
        return TorchvisionNet(net)

    return build


def _custom(name: str) -> Builder:
    known = ARCHITECTURES[name].options
    # Strict: YAML's `no` arrives as text, which must not pass for a bool.
    strict = validate_call(config={"strict": True})(_module(name).build)

    def build(num_classes: int, **options: Any) -> nn.Module:
        for option in options:
            if option not in known:
                shown = [key for key in known if key != "pretrained"]
                raise UserError(f"custom/{name}: {unknown('option', option, shown)}")
        try:
            net: nn.Module = strict(num_classes, **options)
        except ValidationError as error:
            faults = [f"{e['loc'][0]}: {e['msg']}, not {e['input']!r}" for e in error.errors()]
            raise UserError(f"custom/{name}: {'; '.join(faults)}.") from error
        return net

    return build


def _module(name: str) -> Any:
    return importlib.import_module(f"custom_models.{name}")


BUILDERS: dict[str, Callable[[str], Builder]] = {
    "smp": _smp,
    "timm": _timm,
    "torchvision": _torchvision,
    "custom": _custom,
}


def find_encoder(net: nn.Module, asked_by: str) -> nn.Module:
    """Return the encoder of a network.

    Raises:
        UserError: if it has none, naming the key that needs one.
    """
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UserError(
            f"{asked_by}: {type(net).__name__} has no part called encoder; leave the key out, or "
            "set it under `overrides` for the models that have one."
        )
    return encoder


def tagged(encoder: str, weights: str) -> str:
    """Add the tag of its weights to a timm encoder's name; "imagenet" is timm's default."""
    return encoder if weights == "imagenet" else f"{encoder}.{weights}"


def _no_download(weights: str, of: str, error: BaseException) -> UserError:
    return UserError(
        f"Cannot download the weights {weights!r} of {of}: {first_line(error)} "
        "If this machine is offline, give a file: weights: {encoder: path/to/file.safetensors}."
    )


def said(error: BaseException) -> str:
    """Return what an error of a network says: cause first, then the line of the user's own code.

    An error without a message of its own is named by its type.
    """
    text = first_line(error)
    if isinstance(error, SystemExit):
        text = f"it ends the program (SystemExit {error})"
    elif mixes_devices(error):
        text = (
            "it mixes tensors of two devices; make tensors with device=x.device, and register "
            "constants with register_buffer"
        )
    elif type(error) not in (
        UserError,
        RuntimeError,
        ValueError,
        TypeError,
        Exception,
    ) and not text.startswith(type(error).__name__):
        text = f"{type(error).__name__}: {text}"
    return text.removesuffix(".") + (place_of(error) or ".")


def mixes_devices(error: BaseException) -> bool:
    """Whether an error says that tensors of two devices meet."""
    signs = r"on the same device|not on the expected device|two different devices"
    return isinstance(error, RuntimeError | AssertionError) and bool(re.search(signs, str(error)))


def place_of(error: BaseException) -> str:
    """Return the last line of a user's own code that an error went through, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith(NOT_OWN)]
    if not own:
        return ""
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line})."


def needs_values(error: BaseException) -> bool:
    """Return whether an error means that the meta device, which has no values, is not enough."""
    return isinstance(error, NotImplementedError) or "meta tensor" in str(error)
