"""The table of datasets, and how to open one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.datasets.base import Dataset
from bench.datasets.camvid import CamVid
from bench.datasets.cityscapes import Cityscapes
from bench.datasets.folder import Folder
from bench.datasets.idd import IDD
from bench.datasets.shapes import Shapes
from bench.datasets.voc import VOC2007, VOC2012
from bench.datasets.voc2012_aug import VOC2012Aug
from bench.errors import UserError
from bench.lookup import pick, resolve
from bench.machine.source_hash import source_hash

DATASETS: dict[str, type[Dataset]] = {
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "folder": Folder,
    "idd": IDD,
    "shapes": Shapes,
    "voc2007": VOC2007,
    "voc2012": VOC2012,
    "voc2012_aug": VOC2012Aug,
}


def find(name: str) -> type[Dataset]:
    """Return a dataset's class, by name or from a user's `package.module:attribute`."""
    if ":" not in name:
        return pick("dataset", name, DATASETS)
    found = resolve(name)
    if not (isinstance(found, type) and issubclass(found, Dataset)):
        raise UserError(f"{name} is not a subclass of bench.datasets.Dataset.")
    missing = [a for a in ("title", "splits", "citation", "licence") if not hasattr(found, a)]
    if missing:
        raise UserError(f"{name} needs the class attributes {' and '.join(missing)}.")
    if found.__init__ is not Dataset.__init__:
        raise UserError(f"{name} has an __init__; set what depends on options in configure().")
    return found


def open_dataset(
    key: str,
    name: str,
    root: str | None,
    options: Mapping[str, Any],
    roots: Mapping[str, Path],
    suite_folder: str | None = None,
) -> Dataset:
    """Open a dataset; its folder is in `roots`, else the suite's root, else $BENCH_DATA/<name>.

    Args:
        key: its key in the suite; `roots` may use the key or the name.
        suite_folder: where lists are looked for if they are not in the dataset's folder.
    """
    dataset = find(name)
    folder = roots.get(key, roots.get(name, Path(os.path.expanduser(root)) if root else None))
    plain = key if ":" in name else name
    if folder is None and dataset.needs_root and os.environ.get("BENCH_DATA"):
        folder = Path(os.environ["BENCH_DATA"]) / plain
    return dataset(
        folder,
        dataset.Options.model_validate(dict(options)),
        name=plain,
        key=key,
        source=source_hash(name),
        suite_folder=None if suite_folder is None else Path(suite_folder),
    )
