"""The schema of models: an architecture, its options and its weights."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench.lookup import unknown
from bench.suite import catalog
from bench.suite.schema import Frozen

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


class Weights(Frozen):
    """Where a model's weights come from, and which part of the model they fill."""

    part: Literal["encoder", "model"]
    source: str = Field(description="a file, or a name whose weights the library downloads")
    sha256: str | None = Field(
        None, description="SHA-256 of the file, filled in when the suite is read"
    )
    file: Path | None = Field(None, exclude=True)  # its path; not part of ids or records

    @property
    def by_name(self) -> bool:
        """Whether they are given by name, for a library to download."""
        return self.file is None and not self.source.endswith(WEIGHT_SUFFIXES)

    @property
    def is_missing(self) -> bool:
        """Whether they are a file that did not exist when the suite was read."""
        return self.file is None and self.source.endswith(WEIGHT_SUFFIXES)

    @property
    def missing_message(self) -> str:
        """The error message for a missing file, with the places searched."""
        return (
            f"No weight file {self.source!r}, neither beside the suite nor in the folder "
            f"$BENCH_WEIGHTS ({os.environ.get('BENCH_WEIGHTS') or 'not set'})."
        )


class InitFrom(Frozen):
    """A case of the same suite whose trained weights this case starts from."""

    model: str = Field(description="key of models")
    dataset: str | None = Field(None, description="key of datasets; null: the same dataset")
    recipe: str | None = Field(None, description="key of recipes; null: the same recipe")
    seed: int | None = Field(None, description="null: the same seed")
    part: str = Field(
        "all",
        description="module whose tensors are copied, such as encoder; all: every tensor",
    )


class Normalize(Frozen):
    """Mean and standard deviation of the channels R, G, B, for pixel values in 0..1."""

    mean: tuple[float, float, float] = Field(description="subtracted from the image")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="the image is divided by it, after the mean is subtracted"
    )


class ModelSpec(Frozen):
    """An architecture with its options; any other key is passed to the architecture."""

    model_config = ConfigDict(extra="allow")

    arch: str = Field(
        description="smp/NAME, timm/NAME, torchvision/NAME, custom/NAME or package.module:attribute"
    )
    encoder: str | None = Field(
        None,
        description="for smp/…: one of smp's, or tu-NAME for one of timm's; for custom/…: one of "
        "timm's",
    )
    weights: Weights | None = Field(
        None,
        description="pretrained weights: a name, a file, {encoder: …} or {model: …}; null: none",
    )
    normalize: Literal["auto", "imagenet", "none"] | Normalize = Field(
        "auto",
        description="auto: the mean and std of the encoder's pretraining if known, otherwise "
        "ImageNet's",
    )
    init: Literal["xavier", "kaiming", "default"] | None = Field(
        None,
        description="initialisation of the weights that are neither loaded nor frozen; null: the "
        "architecture's own; default: PyTorch's default",
    )
    init_from: InitFrom | None = Field(
        None, description="another case whose trained weights are the start"
    )
    label: str | None = Field(None, description="name in tables; defaults to the key")

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, arch: str, info: ValidationInfo) -> str:
        known = catalog.architectures()
        if info.context is None or ":" in arch or arch in known:
            return arch
        same = [name for name in known if name.partition("/")[2] == arch.lower()]
        if same:
            raise ValueError(f"Unknown model {arch!r}. Did you mean {' or '.join(same)}?")
        if "/" not in arch and "." in arch:
            raise ValueError(f"{arch!r} looks like a module; give package.module:attribute.")
        raise ValueError(unknown("model", arch, known))

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str | None, info: ValidationInfo) -> str | None:
        arch = info.data.get("arch", "")
        if info.context is None or encoder is None or ":" in arch:
            return encoder
        known = catalog.encoders() if arch.startswith("smp/") else catalog.timm_models()
        plain = encoder.split(".")[0]  # without the tag of timm's pretrained weights
        if plain not in known:
            raise ValueError(unknown("encoder", plain, known))
        return encoder

    @model_validator(mode="before")
    @classmethod
    def _default_encoder(cls, value: Any) -> Any:
        if isinstance(value, dict) and str(value.get("arch", "")).startswith("smp/"):
            return {"encoder": "resnet34"} | value
        return value

    @field_validator("weights", mode="before")
    @classmethod
    def _read_weights(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or info.context is None:
            return value
        if isinstance(value, str):
            whole = value.endswith(WEIGHT_SUFFIXES) and not info.data.get("encoder")
            value = {"model" if whole else "encoder": value}
        if not isinstance(value, dict) or len(value) != 1 or set(value) - {"encoder", "model"}:
            raise ValueError("Give null, a name, a file, {encoder: …} or {model: …}.")
        [(part, source)] = value.items()
        if not isinstance(source, str) or not source:
            raise ValueError(f"Weights must be a name or a file, not {source!r}.")
        if "/" in source and Path(source).is_dir():
            raise ValueError(f"{source} is a folder; give a file with weights.")
        if not source.endswith(WEIGHT_SUFFIXES) and part == "model":
            raise ValueError(f"Weights of a whole model must be a file, not the name {source!r}.")
        if not source.endswith(WEIGHT_SUFFIXES):
            return {"part": part, "source": source}
        file = _find_weights(source, info.context["folder"])
        if file is None:
            return {"part": part, "source": source}
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"part": part, "source": source, "sha256": digest, "file": file}

    @model_validator(mode="after")
    def _init_has_something_to_do(self) -> "ModelSpec":
        if self.init is not None and self.weights is not None and self.weights.part == "model":
            raise ValueError(
                "init has no effect: weights fill the whole model; remove one of the two."
            )
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options that are passed to the architecture's builder."""
        return dict(self.model_extra or {})


def _find_weights(name: str, folder: Path) -> Path | None:
    given = Path(os.path.expanduser(name))
    places = [folder / given]
    if os.environ.get("BENCH_WEIGHTS"):
        places.append(Path(os.environ["BENCH_WEIGHTS"]) / given)
    return next((place for place in places if place.is_file()), None)
