"""A case, which is one training, and the id computed from its content."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from bench.datasets.base import Dataset
from bench.datasets.registry import find
from bench.suite.dataset import DatasetSpec
from bench.suite.loss import CrossEntropy, Dice, Focal
from bench.suite.model import ModelSpec
from bench.suite.optimizer import Adam, AdamW
from bench.suite.recipe import Recipe
from bench.suite.schema import Frozen

SCHEMA_VERSION = 1
# Increased when the same case would give other numbers. 2: masks are resized by taking the pixel
# with the nearest centre; transforms shrink images by area averaging.
NUMERICS_VERSION = 2
DIGITS_OF_A_FOLDER = 8  # of the id
Names = tuple[str, str, str, int]
# The original fields of these parts are in every id. A field added later is left out while it has
# its default, so that adding one changes no id. Parts that are not listed are hashed whole.
FIRST_FIELDS: dict[type[BaseModel], str] = {
    ModelSpec: "arch encoder weights normalize init_from label",
    Recipe: "epochs steps batch_size accumulate size augment optimizer schedule warmup loss "
    "clip_grad precision validate_every",
    Adam: "name lr betas weight_decay",
    AdamW: "name lr betas weight_decay",
    CrossEntropy: "name class_weights label_smoothing",
    Focal: "name class_weights gamma",
    Dice: "name",
}


class Parent(Frozen):
    """The case whose trained weights another case starts from."""

    id: str
    name: str
    folder: str
    part: str


class Case(Frozen):
    """One training: everything that its numbers depend on, and its names."""

    dataset_name: str
    model_name: str
    recipe_name: str
    label: str
    dataset: DatasetSpec
    train_split: str
    model: ModelSpec
    source: str | None = None
    recipe: Recipe
    seed: int
    limit: int | float | None = None
    parent: Parent | None = None
    select_split: str | None = None  # None: scores do not select the model
    numerics_version: int = 1  # NUMERICS_VERSION when the case was made

    @property
    def name(self) -> str:
        """The name that --filter matches."""
        return case_name((self.dataset_name, self.model_name, self.recipe_name, self.seed))

    @property
    def folder(self) -> str:
        """The name of the case's folder; it ends with the first 8 digits of the id."""
        return f"{self.name}__{self.id[:DIGITS_OF_A_FOLDER]}"

    @property
    def start(self) -> str:
        """The weights before any training, in words."""
        weights, is_own = self.model.weights, ":" in self.model.arch
        rest = "the rest from its builder" if is_own else "the rest random"
        if self.parent is not None:
            of = f"weights of {self.parent.name}"
            if weights is not None:
                rest = f"{weights.part} weights from {PurePath(weights.source).name} before"
            return of if self.parent.part == "all" else f"{self.parent.part} {of}, {rest}"
        if weights is None:
            return "weights from its builder" if is_own else "random weights"
        of = f"weights from {PurePath(weights.source).name}"
        return of if weights.part == "model" else f"encoder {of}, {rest}"

    @cached_property
    def id(self) -> str:
        """SHA-256 of what was asked, without names, labels, locations and machines."""
        weights = self.model.weights
        content = {
            "schema": SCHEMA_VERSION,
            "numerics": self.numerics_version,
            "dataset": self._dataset_identity(),
            "train_split": self.train_split,
            "model": {
                k: v
                for k, v in canonical(self.model).items()
                if k not in ("label", "init_from", "weights")
            },
            "weights": weights and [weights.part, weights.sha256 or weights.source],
            "source": self.source,
            "recipe": canonical(self.recipe),
            "seed": self.seed,
            "limit": self.limit,
            "parent": self.parent and [self.parent.id, self.parent.part],
        }
        if self.select_split is not None:
            content["select_split"] = self.select_split
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _dataset_identity(self) -> dict[str, Any]:
        dataset = find(self.dataset.name)
        options = dataset.Options.model_validate(self.dataset.options)
        return {"name": self.dataset.name} | dataset.identity(options)


def canonical(value: BaseModel) -> dict[str, Any]:
    """Dump a part of a case for hashing, nested parts included; see `FIRST_FIELDS`."""
    fields = type(value).model_fields
    first = FIRST_FIELDS[type(value)].split() if type(value) in FIRST_FIELDS else list(fields)
    dumped = value.model_dump(mode="json")
    for name, field in fields.items():
        part = getattr(value, name)
        if name not in first and part == field.default:
            del dumped[name]
        elif name in dumped:
            dumped[name] = _canonical_part(part, dumped[name])
    return dumped


def _canonical_part(part: Any, dumped: Any) -> Any:
    if isinstance(part, BaseModel):
        return canonical(part)
    if isinstance(part, tuple):
        return [_canonical_part(item, plain) for item, plain in zip(part, dumped, strict=True)]
    return dumped


def case_name(names: Names) -> str:
    """Return the name of a case, which --filter matches."""
    dataset, model, recipe, seed = names
    return f"{dataset}__{model}__{recipe}__s{seed}"


def open_case_dataset(case: Case, roots: Mapping[str, Path]) -> Dataset:
    """Open the dataset of a case; `roots` overrides the folders of the suite."""
    return case.dataset.open(case.dataset_name, roots)
