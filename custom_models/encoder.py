"""Encoders from timm: networks that return features instead of classes."""

from typing import Any

import timm


def timm_encoder(name: str, pretrained: str | None, **options: Any) -> Any:
    """Build an encoder by its name in timm.

    Args:
        pretrained: "imagenet" for timm's default weights, or a tag of others; they are downloaded.
        options: passed to timm, such as which features to return or the output stride.

    Raises:
        RuntimeError: if timm does not know the name or the tag.
    """
    tagged = name if pretrained in (None, "imagenet") else f"{name}.{pretrained}"
    return timm.create_model(
        tagged, pretrained=pretrained is not None, features_only=True, **options
    )
