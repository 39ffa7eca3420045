"""The schema of datasets: a reader, its options, where its files are."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.json_schema import SkipJsonSchema

from bench.datasets.base import Dataset, Labels
from bench.datasets.registry import find, open_dataset
from bench.errors import Fault, Faults, UserError
from bench.suite.schema import Frozen
from bench.suite.validation_errors import describe


class DatasetSpec(Frozen):
    """A dataset with its options: a built-in one, or your own as `package.module:attribute`."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        "", description="name of the dataset, or package.module:attribute; defaults to the key"
    )
    root: str | None = Field(
        None,
        description="folder of its files, relative to the suite or the working directory; --root "
        "NAME=PATH overrides it",
    )
    suite_folder: SkipJsonSchema[str | None] = None  # filled in when the suite is read

    @model_validator(mode="before")
    @classmethod
    def _resolve_options(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is None or not isinstance(value, dict):
            return value
        if not isinstance(value.get("name"), str):
            raise Faults([Fault(("name",), f"Must be text, not {value.get('name')!r}.")])
        folder: Path = info.context["folder"]
        known = {key: value[key] for key in ("name", "root") if key in value}
        if isinstance(known.get("root"), str):
            known["root"] = _find_root(known["root"], folder)
        options = {key: option for key, option in value.items() if key not in known}
        try:
            dataset = find(value["name"])
        except UserError as error:
            raise Faults([Fault(("name",), str(error))]) from error
        try:
            resolved = dataset.Options.model_validate(options, context=info.context)
        except ValidationError as error:
            raise Faults(describe(error, dataset.Options)) from error
        return known | {"suite_folder": str(folder)} | resolved.model_dump(mode="json")

    @property
    def options(self) -> dict[str, Any]:
        """The values for the dataset's `Options`."""
        return dict(self.model_extra or {})

    def open(self, key: str, roots: Mapping[str, Path]) -> Dataset:
        """Open the dataset; `roots` overrides its folder, by its key in the suite or its name."""
        return open_dataset(key, self.name, self.root, self.options, roots, self.suite_folder)

    @property
    def labels(self) -> Labels:
        """Names and colours of the classes; the dataset's files are not needed."""
        dataset = find(self.name)
        return dataset.labels(dataset.Options.model_validate(self.options))


def _find_root(name: str, suite_folder: Path) -> str:
    """Return a dataset's folder: below the suite's folder if it exists there, else as given."""
    given = Path(os.path.expanduser(name))
    beside = suite_folder / given
    return str(beside if beside.is_dir() else given)
