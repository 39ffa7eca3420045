"""Load a suite file; all errors are reported at once, each with its file and line."""

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.datasets.registry import find
from bench.errors import Fault, Faults, UserError
from bench.lookup import unknown
from bench.suite import yaml_file
from bench.suite.case import Case
from bench.suite.catalog import find_suite
from bench.suite.expand import expand
from bench.suite.recipe import change_recipe, lay_over
from bench.suite.suite import Suite
from bench.suite.validation_errors import describe
from bench.text import name_and_value

EXAMPLE = "recipe.epochs=2"
SuiteSource = str | Path | Mapping[str, Any]  # a file, the name of a shipped suite, or its content


@dataclass(frozen=True)
class SuiteFile:
    """A valid suite, with the file and line of each part."""

    suite: Suite
    document: yaml_file.Document

    def error(self, faults: Iterable[Fault]) -> UserError:
        """Return an error for faults found later, such as a model that does not build."""
        return located(self.document, faults)

    def cases(self) -> list[Case]:
        """List the cases of the suite in the order of its file.

        Raises:
            UserError: with the line, if a case is given twice or cannot start from the case that
                it names.
        """
        try:
            return expand(self.suite)
        except Faults as error:
            raise self.error(error.faults) from error


def as_settings(values: Mapping[str, Any]) -> list[str]:
    """Write values, such as {"recipe.epochs": 2}, as the settings that `load` takes.

    Raises:
        UserError: if a value cannot be written as JSON.
    """
    try:
        return [f"{key}={_setting(value)}" for key, value in values.items()]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"Settings take plain values, such as text, numbers and lists: {error}."
        ) from error


def _setting(value: Any) -> str:
    """Write a value as a user would: plain text if YAML reads it as that, else JSON."""
    if isinstance(value, str):
        with suppress(UserError):
            if yaml_file.parse_value(value) == value:
                return value
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def load(
    source: SuiteSource,
    settings: Iterable[str] = (),
    check_transform: Callable[[Any], None] | None = None,
) -> SuiteFile:
    """Read and validate a suite.

    Args:
        source: a file; the name of a shipped suite, such as quick; or the content of a suite
            file as a dict, in which relative paths are relative to the working directory.
        settings: texts "key.key=value" that override the file. Those that begin with `recipe.`
            are applied last and change every recipe and override.
        check_transform: raises UserError for a wrong augmentation; if None, none is checked.

    Raises:
        UserError: listing every fault with its file and line.
    """
    if isinstance(source, Mapping):
        folder, document = Path(), yaml_file.from_data(dict(source))
    else:
        file = find_suite(source)
        folder, document = file.parent, yaml_file.read(file)
    if not isinstance(document.data, dict):
        raise UserError(f"{document.title}: a suite is keys and values, such as name: NAME.")
    for setting in sorted(settings, key=lambda text: text.startswith("recipe.")):
        for one in _spelled_out(setting, document.data):
            _apply(one, document)
    _spread_recipe(document)
    context = {"folder": folder, "check_transform": check_transform}
    faults = [*document.faults, *_name_faults(document.data, context)]
    try:
        suite = Suite.model_validate(document.data, context=context)
    except ValidationError as error:
        raise located(document, faults + describe(error, Suite)) from error
    faults += _override_faults(suite, context)
    if faults:
        raise located(document, faults)
    return SuiteFile(suite, document)


def _spelled_out(setting: str, suite: Any) -> list[str]:
    """Expand a setting with a * among its keys to one setting per existing key."""
    name, text = name_and_value(setting, "--set", EXAMPLE)
    keys = name.split(".")
    if "*" not in keys:
        return [setting]
    place = keys.index("*")
    here = suite
    for key in keys[:place]:
        here = _mapping(here).get(key)
    names = [".".join([*keys[:place], str(key), *keys[place + 1 :]]) for key in _mapping(here)]
    if not names:
        raise UserError(f"--set {setting}: * matches no key.")
    return [one for n in names for one in _spelled_out(f"{n}={text}", suite)]


def _apply(setting: str, document: yaml_file.Document) -> None:
    """Apply one "key.key=value" to the suite."""
    name, text = name_and_value(setting, "--set", EXAMPLE)
    keys: tuple[str | int, ...] = tuple(name.split("."))
    if keys[0] == "include":
        raise UserError("--set cannot change include; edit the suite file.")
    if not all(keys):
        raise UserError(f"--set takes NAME=VALUE, such as {EXAMPLE}, not {setting!r}.")
    change = yaml_file.parse_value(text)
    for key in reversed(keys):
        change = {key: change}
    overrides = document.data.get("overrides", [])
    if keys[0] == "recipe" and isinstance(overrides, list):
        keys = ("overrides", len(overrides), *keys)
        document.data = {**document.data, "overrides": [*overrides, change]}
    else:
        document.data = yaml_file.merge(document.data, change)
    for length in range(1, len(keys)):
        document.places.setdefault(keys[:length], f"--set {setting}")
    document.places[keys] = f"--set {setting}"


def _spread_recipe(document: yaml_file.Document) -> None:
    """Merge `recipe` into each of `recipes` as its defaults, and remove it."""
    base, named = document.data.get("recipe"), document.data.get("recipes")
    if not (isinstance(base, dict) and isinstance(named, dict) and named):
        return
    recipes = {}
    for name, change in named.items():
        recipes[name] = lay_over(base, change or {}) if isinstance(change, dict | None) else change
        for keys, place in list(document.places.items()):
            if keys[:1] == ("recipe",) and len(keys) > 1:
                document.places.setdefault(("recipes", name, *keys[1:]), place)
    document.data = {k: v for k, v in document.data.items() if k != "recipe"}
    document.data["recipes"] = recipes


def _name_faults(suite: dict[str, Any], context: Any) -> Iterator[Fault]:
    """Find names that refer to nothing; the data need not be valid otherwise."""
    names = {
        kind: [str(key) for key in _mapping(suite.get(f"{kind}s"))]
        for kind in ("dataset", "model", "recipe")
    }
    names["recipe"] = names["recipe"] or ["default"]
    for i, row in enumerate(_rows(suite.get("cases"))):
        for kind, known in names.items():
            name = row.get(kind, "default" if kind == "recipe" else None)
            if isinstance(name, str) and name not in known:
                yield Fault(("cases", i, kind), unknown(kind, name, known))
    for group in ("exclude", "overrides"):
        for i, row in enumerate(_rows(suite.get(group))):
            for kind, known in names.items():
                key = "recipe_name" if (group, kind) == ("overrides", "recipe") else kind
                pattern = row.get(key, "*")
                if isinstance(pattern, str) and known and not fnmatch.filter(known, pattern):
                    message = f"{pattern!r} matches nothing. {unknown(kind, pattern, known)}"
                    yield Fault((group, i, key), message)
    if suite.get("recipe") is None and not suite.get("recipes"):
        yield Fault((), "A suite needs recipe: or recipes:.")
    seeds = suite.get("seeds")
    if isinstance(seeds, list) and len({str(seed) for seed in seeds}) < len(seeds):
        yield Fault(("seeds",), "A seed is given twice.")
    yield from _split_faults(suite, context)
    yield from _evaluation_faults(suite)


def _split_faults(suite: dict[str, Any], context: Any) -> Iterator[Fault]:
    """Find splits that a dataset does not have."""
    splits, evaluations = _mapping(suite.get("splits")), _mapping(suite.get("evaluations"))
    used: dict[tuple[str | int, ...], Any]
    used = {("splits", kind): splits[kind] for kind in ("train", "select") if kind in splits}
    report = splits.get("report")
    if isinstance(report, list):
        used |= {("splits", "report", i): split for i, split in enumerate(report)}
    for name, evaluation in evaluations.items():
        used["evaluations", name, "split"] = _mapping(evaluation).get("split")
    known_splits: set[str] = set()
    for key, spec in _mapping(suite.get("datasets")).items():
        given = {k: v for k, v in _mapping(spec).items() if k not in ("name", "root")}
        try:
            dataset = find(str(_mapping(spec).get("name", key)))
            opened = dataset(None, dataset.Options.model_validate(given, context=context))
        except (UserError, ValidationError):
            continue  # an unknown dataset or option is reported elsewhere
        for path, split in used.items():
            if not isinstance(split, str):
                continue  # reported by the schema
            if split in opened.withheld:
                yield Fault(path, f"Dataset {key!r}: {opened.withheld[split]}")
            elif split not in opened.splits:
                yield Fault(path, f"Dataset {key!r}: {unknown('split', split, opened.splits)}")
        known_splits |= {*opened.splits, *opened.withheld}
    for i, item in enumerate(_rows(suite.get("reported"))):
        if (
            known_splits
            and isinstance(item.get("split"), str)
            and item["split"] not in known_splits
        ):
            yield Fault(("reported", i, "split"), unknown("split", item["split"], known_splits))


def _evaluation_faults(suite: dict[str, Any]) -> Iterator[Fault]:
    """Find evaluations that tables and gate.floors name but the suite does not have."""
    splits = _mapping(suite.get("splits"))
    report = splits.get("report")
    reported = report if isinstance(report, list) else ["val"]
    scored = {
        *_mapping(suite.get("evaluations")),
        *map(str, reported),
        str(splits.get("train", "train")),
    }
    asked: dict[tuple[str | int, ...], Any] = {}
    for key, table in _mapping(suite.get("tables")).items():
        asked["tables", key, "evaluation"] = _mapping(table).get("evaluation")
        for i, column in enumerate(_rows(_mapping(table).get("columns"))):
            asked["tables", key, "columns", i, "evaluation"] = column.get("evaluation")
    for i, floor in enumerate(_rows(_mapping(suite.get("gate")).get("floors"))):
        asked["gate", "floors", i, "evaluation"] = floor.get("evaluation")
    for path, wanted in asked.items():
        if isinstance(wanted, str) and wanted not in scored:
            yield Fault(path, unknown("evaluation", wanted, scored))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any) -> list[dict[str, Any]]:
    return [_mapping(row) for row in value] if isinstance(value, list) else []


def _override_faults(suite: Suite, context: Any) -> list[Fault]:
    """Apply each override to each recipe that it matches, and return the faults."""
    faults = {}
    for i, override in enumerate(suite.overrides):
        for name, recipe in suite.all_recipes.items():
            if not fnmatch.fnmatchcase(name, override.recipe_name):
                continue
            try:
                change_recipe(recipe, override.recipe, context)
            except Faults as error:
                for fault in error.faults:
                    path = ("overrides", i, "recipe", *fault.path)
                    faults[path, fault.message] = Fault(path, fault.message)
    return list(faults.values())


def located(document: yaml_file.Document, faults: Iterable[Fault]) -> UserError:
    """Return one error that lists faults with their files and lines."""
    lines = []
    for fault in faults:
        place = document.place(fault.path) or document.title
        keys = ".".join(str(key) for key in document.keys(fault.path))
        keys = "" if place.startswith("--set") else keys.removesuffix(" (again)")
        lines.append(f"{place}: {keys + ': ' if keys else ''}{fault.message}")

    def position(line: str) -> tuple[str, int]:
        match = re.match(r"(.*?):(\d+): ", line)
        return (match[1], int(match[2])) if match else (line, 0)

    return UserError("\n".join(sorted(dict.fromkeys(lines), key=position)))
