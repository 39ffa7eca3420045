"""Bare networks by name: smp/…, timm/…, torchvision/…, custom/…, package.module:attribute."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import segmentation_models_pytorch as smp
import torch.nn.functional as F
import torchvision.models.segmentation as segmentation
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from bench.errors import UserError
from bench.lookup import pick, resolve, unknown
from bench.suite import ModelSpec
from custom_models.encoder import timm_encoder

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
Builder = Callable[..., nn.Module]


def build_network(spec: ModelSpec, num_classes: int, download: bool = False) -> nn.Module:
    """Build the bare network, at random unless `download` allows weights by name.

    Raises:
        UserError: for options that do not fit, or weights that cannot be had.
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
    if spec.weights is not None and spec.weights.file is None and download:
        options["pretrained"] = spec.weights.source
    try:
        net = builder(num_classes, **options)
    except (OSError, HfHubHTTPError) as error:
        if "pretrained" not in options:
            raise
        raise _no_download(options["pretrained"], spec.arch, error) from error
    except BUILD_ERRORS as error:
        if needs_values(error):
            raise
        raise UserError(f"{spec.arch} does not build: {first_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise UserError(f"{spec.arch} gave {type(net).__name__}, not an nn.Module.")
    return net


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
    """Refuse what smp would swallow: it hands unknown options on, and its encoders ignore them."""
    known = set(inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[name]).parameters)
    known -= {"kwargs", *SMP_RESERVED}
    for option in options:
        if option in SMP_RESERVED:
            raise UserError(f"smp/{name}: {option} is set by {SMP_RESERVED[option]}.")
        if option not in known and not encoder.startswith("tu-"):  # timm checks its own
            raise UserError(f"smp/{name}: {unknown('option', option, known)}")


class TimmFCN(nn.Module):
    """The last features of a timm network under torchvision's FCN head, upsampled bilinearly."""

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
    """A segmentation network of torchvision, its auxiliary head only in training.

    The keys are torchvision's own, so that its weight files fit.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = net.backbone
        self.classifier: Any = net.classifier
        self.aux_classifier = getattr(net, "aux_classifier", None)
        self.takes_all = isinstance(net, segmentation.LRASPP)  # of the backbone's features

    @property
    def encoder(self) -> nn.Module:
        """What ImageNet weights fill."""
        return cast("nn.Module", self.backbone)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Map (N, 3, H, W) to logits (N, K, H, W), in training with those of an auxiliary head."""
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
        for option in options:
            if option != "aux_loss":
                raise UserError(f"torchvision/{name}: {unknown('option', option, ['aux_loss'])}")
        if pretrained not in (None, "imagenet"):
            raise UserError(
                f"torchvision/{name} has encoder weights 'imagenet', not {pretrained!r}."
            )
        try:
            net = getattr(segmentation, name)(
                weights=None,
                weights_backbone="DEFAULT" if pretrained else None,
                num_classes=num_classes,
                **options,
            )
        except NotImplementedError as error:  # an auxiliary head where there can be none
            raise UserError(f"torchvision/{name}: {error}.") from error
        return TorchvisionNet(net)

    return build


def _custom(name: str) -> Builder:
    module = importlib.import_module(f"custom_models.{name}")
    return cast("Builder", module.build)


BUILDERS: dict[str, Callable[[str], Builder]] = {
    "smp": _smp,
    "timm": _timm,
    "torchvision": _torchvision,
    "custom": _custom,
}


def tagged(encoder: str, weights: str) -> str:
    """Name a timm encoder with the tag of its weights; "imagenet" is timm's default."""
    return encoder if weights == "imagenet" else f"{encoder}.{weights}"


def _no_download(weights: str, of: str, error: BaseException) -> UserError:
    return UserError(
        f"Cannot download the weights {weights!r} of {of}: {first_line(error)} "
        "Offline, give a file: weights: {encoder: path/to/file.safetensors}."
    )


def needs_values(error: BaseException) -> bool:
    """Say whether an error means that the meta device, which has no values, was not enough."""
    return isinstance(error, NotImplementedError) or "meta tensor" in str(error)


def first_line(error: BaseException) -> str:
    """Return an error's text on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:300] + "…"
