"""The schema of models: an architecture, its options, its weights."""

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
    """Where a model's weights come from and what they fill."""

    part: Literal["encoder", "model"]
    source: str = Field(description="a name that the library downloads, or a file")
    sha256: str | None = Field(None, description="of the file's content, filled in when loaded")
    file: Path | None = Field(None, exclude=True)  # where it lies; in no id and no record

    @property
    def by_name(self) -> bool:
        """Whether a library downloads them."""
        return self.file is None and not self.source.endswith(WEIGHT_SUFFIXES)

    @property
    def is_missing(self) -> bool:
        """Whether they are a file that was not there when the suite was read."""
        return self.file is None and self.source.endswith(WEIGHT_SUFFIXES)

    @property
    def missing(self) -> str:
        """Say where such a file was looked for."""
        return (
            f"No weight file {self.source!r}: looked for it beside the suite and in the folder "
            f"$BENCH_WEIGHTS ({os.environ.get('BENCH_WEIGHTS') or 'not set'})."
        )


class InitFrom(Frozen):
    """A case of the same suite whose trained weights start this one."""

    model: str = Field(description="key of models")
    dataset: str | None = Field(None, description="defaults to the same")
    recipe: str | None = Field(None, description="defaults to the same")
    seed: int | None = Field(None, description="defaults to the same")
    part: str = Field("all", description="prefix of the tensors to take, such as encoder, or all")


class Normalize(Frozen):
    """Mean and standard deviation of the channels R, G, B, in 0..1."""

    mean: tuple[float, float, float] = Field(description="subtracted")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(description="divided by")


class ModelSpec(Frozen):
    """An architecture with its options; keys not named here go to the architecture."""

    model_config = ConfigDict(extra="allow")

    arch: str = Field(
        description="smp/NAME, timm/NAME, torchvision/NAME, custom/NAME or package.module:attribute"
    )
    encoder: str | None = Field(
        None,
        description="of smp/…: any of smp's, or tu-NAME for timm's; of custom/…: any of timm's",
    )
    weights: Weights | None = Field(
        None, description="null, a name, a file, or {encoder: …} or {model: …}"
    )
    normalize: Literal["auto", "imagenet", "none"] | Normalize = Field(
        "auto", description="auto: the encoder's own mean and std, else ImageNet's"
    )
    init: Literal["xavier", "kaiming", "default"] | None = Field(
        None,
        description="how weights that are neither loaded nor frozen begin; null: as the "
        "architecture has it; default: as torch has it",
    )
    init_from: InitFrom | None = Field(None, description="another case, whose weights start this")
    label: str | None = Field(None, description="the name in tables; defaults to the key")

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
            raise ValueError(f"{arch!r} names a module: give package.module:attribute.")
        raise ValueError(unknown("model", arch, known))

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str | None, info: ValidationInfo) -> str | None:
        arch = info.data.get("arch", "")
        if info.context is None or encoder is None or ":" in arch:
            return encoder
        known = catalog.encoders() if arch.startswith("smp/") else catalog.timm_models()
        plain = encoder.split(".")[0]  # without the tag of timm's weights
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
            raise ValueError(f"Weights are a name or a file, not {source!r}.")
        if "/" in source and Path(source).is_dir():
            raise ValueError(f"{source} is a folder; give a file of weights.")
        if not source.endswith(WEIGHT_SUFFIXES) and part == "model":
            raise ValueError(f"Weights by name, {source!r}, are for encoders; give a file.")
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
            raise ValueError("init: the weights fill the whole model; leave one of the two out.")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What the architecture's own builder takes."""
        return dict(self.model_extra or {})


def _find_weights(name: str, folder: Path) -> Path | None:
    given = Path(os.path.expanduser(name))
    places = [folder / given]
    if os.environ.get("BENCH_WEIGHTS"):
        places.append(Path(os.environ["BENCH_WEIGHTS"]) / given)
    return next((place for place in places if place.is_file()), None)
