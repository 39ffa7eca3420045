"""Encoders of timm: networks that give features instead of classes."""

from typing import Any

import timm


def timm_encoder(name: str, pretrained: str | None, **options: Any) -> Any:
    """Build an encoder by timm's name.

    Args:
        pretrained: "imagenet" for timm's default weights, or their tag; they are downloaded.
        options: of timm: which features, which output stride.

    Raises:
        RuntimeError: for a name or tag that timm has not.
    """
    tagged = name if pretrained in (None, "imagenet") else f"{name}.{pretrained}"
    return timm.create_model(
        tagged, pretrained=pretrained is not None, features_only=True, **options
    )
