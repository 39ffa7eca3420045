"""The command `list`: the names that a suite can use."""

import fnmatch
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from bench.datasets.registry import DATASETS
from bench.lookup import pick
from bench.report.formats.formats import FORMATS
from bench.suite import catalog, yaml_file
from bench.suite.catalog import shipped_suites
from bench.text import name_and_value
from custom_models import ARCHITECTURES


def matching_names(kind: str, pattern: str) -> list[str]:
    """List names of a kind that match a glob."""
    names = pick("list", kind, LISTS)()
    return [line for line in names if fnmatch.fnmatchcase(line.split("  ")[0].strip(), pattern)]


def _datasets() -> Iterable[str]:
    for name, dataset in DATASETS.items():
        try:
            labels = dataset.labels(dataset.Options.model_validate({}))
            classes = f"{labels.num_classes} classes"
        except ValidationError:
            classes = "classes given in the suite"
        yield f"{name:12}  {dataset.title}: {classes}; {', '.join(dataset.splits)}"


def _suites() -> Iterable[str]:
    for name, file in suites().items():
        lines = file.read_text(encoding="utf-8").splitlines()
        first = next((line for line in lines if line.startswith("# ")), "")
        yield f"{name:32}  {first.removeprefix('# ')}"


def _models() -> Iterable[str]:
    for name, architecture in ARCHITECTURES.items():
        about = f"{architecture.title}: {architecture.paper} ({architecture.year})"
        options = [f"{key}={default}" for key, default in catalog.custom_options(name).items()]
        about += f"; {', '.join(options)}" if options else ""
        yield f"{'custom/' + name:24}  {about}"
    yield from (f"smp/{name}" for name in catalog.smp_architectures())
    yield from (f"torchvision/{name}" for name in catalog.torchvision_architectures())
    yield f"{'timm/NAME':24}  any of timm's {len(catalog.timm_models())} networks with features"


LISTS: dict[str, Callable[[], Iterable[str]]] = {
    "models": _models,
    "datasets": _datasets,
    "encoders": catalog.encoders,
    "suites": _suites,
}


def layer_text(arch: str, settings: Iterable[str], form: str) -> str:
    """Write the layer tables of a model.

    Args:
        arch: as suites have it; "custom/" may be left out.
        settings: "option=value" of the architecture, or encoder=….
        form: a format of reports.
    """
    _, render = pick("format", form, FORMATS)
    given = (name_and_value(setting, "--set", "bias=true") for setting in settings)
    options = {name: yaml_file.parse_value(text) for name, text in given}
    from bench.report.layers.layers import layer_tables

    full = arch if "/" in arch or ":" in arch else f"custom/{arch}"
    return "\n".join(render(table) for table in layer_tables(full, options))


def suites() -> dict[str, Path]:
    """List suite files by what `bench run` takes: shipped names, and files below suites/ here."""
    shipped = shipped_suites()
    theirs = {file.resolve() for file in shipped.values()}
    own = (file for file in sorted(Path("suites").rglob("*.yaml")) if file.resolve() not in theirs)
    return {str(file): file for file in own} | shipped
