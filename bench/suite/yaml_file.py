"""Read a YAML file, keeping the file and line of every key.

Scalars follow YAML 1.2 (`off` is text, `1e-3` is a number) and duplicate keys are errors.
`include:` names files that provide defaults for this one.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.errors import Fault, UserError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of the YAML 1.2 core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )


@dataclass
class Document:
    """The content of a YAML file, with the line of every key.

    title: shown in messages if no line is known.
    """

    title: str = ""
    data: Any = None
    places: dict[KeyPath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def keys(self, path: KeyPath) -> KeyPath:
        """Return the part of `path` that exists in the file.

        Parts that are not keys of it (a validator's tags, a missing key) are skipped.
        """
        here: KeyPath = ()
        for part in path:
            if (*here, part) in self.places:
                here = (*here, part)
        return here

    def place(self, path: KeyPath) -> str:
        """Return "file:line" of the deepest key along `path`."""
        return self.places.get(self.keys(path), "")


def read(file: Path, _including: tuple[Path, ...] = ()) -> Document:
    """Read a YAML file and the files it includes.

    Raises:
        UserError: if a file cannot be read, is not valid YAML, or includes itself.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: {error}.") from error
    except yaml.YAMLError as error:
        if opened := _not_closed(error):
            raise UserError(f"{file}:{opened[0]}: {opened[1]} is not closed.") from error
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        written = (
            text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
        )
        problem = str(getattr(error, "problem", error))
        before = text.splitlines()[max(0, mark.line - 1)] if mark and text.splitlines() else ""
        raise UserError(f"{file}{line}: {_explained(problem, written, before)}") from error
    document = Document(str(file))
    if node is not None:
        document.data = _construct(node, (), file, document, ())
    if isinstance(document.data, dict) and "include" in document.data:
        document = _include(document, file, (*_including, file.resolve()))
    return document


def _not_closed(error: yaml.YAMLError) -> tuple[int, str] | None:
    """Return the line and the name of a quote or bracket that is not closed in its line."""
    start, end = getattr(error, "context_mark", None), getattr(error, "problem_mark", None)
    if start is None or end is None or start.line == end.line:
        return None
    names = {"quoted scalar": "a quote", "flow mapping": "a {", "flow sequence": "a ["}
    context = str(getattr(error, "context", ""))
    what = next((name for kind, name in names.items() if kind in context), None)
    return None if what is None else (start.line + 1, what)


def _explained(problem: str, written: str, before: str) -> str:
    """Say what is wrong with a line of YAML.

    Args:
        problem: what the parser says.
        written, before: the line where it stopped, and the one before it.
    """
    if "\\t" in problem:
        return "a tab; use spaces to indent."
    for line in (written, before):
        if re.match(r"\s*(- )?[\w-]+:[^\s/:]", line):
            return f"a space is missing after the colon in {line.strip()!r}."
    if re.search(r":\s*[{*]", written) and not problem.startswith("mapping values"):
        return (
            f'invalid YAML: {problem}. Quote a value that begins with {{ or *: "{{split}}/*.png".'
        )
    if problem.startswith("expected <block end>") or "mapping values are not allowed" in problem:
        return f"{written.strip()!r} is not indented like the lines above it."
    return f"invalid YAML: {problem}."


def from_data(data: dict[str, Any], title: str = "suite") -> Document:
    """Treat data as if it had been read from a file; its places have no lines."""
    document = Document(title, copy.deepcopy(data))

    def note(value: Any, path: KeyPath) -> None:
        document.places[path] = title
        if isinstance(value, Mapping):
            for key, item in value.items():
                note(item, (*path, key))
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                note(item, (*path, i))

    note(document.data, ())
    return _include(document, Path(title), ()) if "include" in data else document


def _construct(
    node: yaml.Node, path: KeyPath, file: Path, document: Document, inside: tuple[yaml.Node, ...]
) -> Any:
    document.places.setdefault(path, f"{file}:{node.start_mark.line + 1}")
    if node in inside:
        raise UserError(f"{file}:{node.start_mark.line + 1}: an alias is inside its own anchor.")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = f"{file}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{line}: a key must be plain text.")
            key = _scalar(key_node)
            if _lacks_a_space(key_node, value_node):
                name, _, value = key_node.value.partition(":")
                raise UserError(f"{line}: a space is missing after the colon: {name}: {value}.")
            if key in mapping:
                first = document.places[(*path, key)].rsplit(":", 1)[1]
                message = f"Duplicate key {key!r}, first given in line {first}. Remove one."
                again = (*path, f"{key} (again)")
                document.places[again] = line
                document.faults.append(Fault(again, message))
                continue
            document.places[(*path, key)] = line
            mapping[key] = _construct(value_node, (*path, key), file, document, (*inside, node))
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(item, (*path, i), file, document, (*inside, node))
            for i, item in enumerate(node.value)
        ]
    try:
        return _scalar(node)
    except ValueError as error:
        raise UserError(f"{file}:{node.start_mark.line + 1}: {error}.") from error


def _lacks_a_space(key: yaml.ScalarNode, value: yaml.Node) -> bool:
    """Whether a key without a value is a pair without a space, as in {shortest:384}."""
    is_empty = isinstance(value, yaml.ScalarNode) and value.value == "" and not value.style
    return bool(is_empty and not key.style and re.fullmatch(r"[A-Za-z_]\w*:[^:]+", key.value))


def _scalar(node: yaml.Node) -> Any:
    value: str = node.value
    match node.tag.rsplit(":", 1)[-1]:
        case "null":
            return None
        case "bool":
            return value.lower() == "true"
        case "int":
            return int(value, 0) if value[:2] in ("0o", "0x") else int(value)
        case "float":
            return float(re.sub(r"\.(inf|nan)", r"\1", value.lower()))
        case _:
            return value


def parse_value(text: str) -> Any:
    """Read one YAML 1.2 value, such as that of `--set key=value`."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set: {text!r} is not a valid YAML value.") from error
    try:
        return None if node is None else _construct(node, (), Path("--set"), Document(), ())
    except UserError as error:
        raise UserError(str(error).replace("--set:1", f"--set {text!r}")) from error


def _include(document: Document, file: Path, including: tuple[Path, ...]) -> Document:
    names = document.data.pop("include")
    merged = Document(document.title, faults=document.faults)
    for name in names if isinstance(names, list) else [names]:
        included = file.parent / str(name)
        if included.resolve() in including:
            raise UserError(f"{document.place(('include',))}: {included} includes itself.")
        if not included.is_file():
            raise UserError(
                f"{document.place(('include',))}: included file {included} does not exist."
            )
        part = read(included, including)
        if not isinstance(part.data, dict):
            raise UserError(f"{included}: expected keys and values.")
        merged.data = merge(merged.data or {}, part.data)
        merged.places |= part.places
        merged.faults += part.faults
    merged.data = merge(merged.data or {}, document.data)
    merged.places |= document.places
    return merged


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `change`: mappings are merged, lists are replaced."""
    merged = dict(base)
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged
