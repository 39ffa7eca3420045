"""The JSON Schema of suites as Markdown, for people."""

import json
import re
from collections.abc import Mapping
from typing import Any

Part = Mapping[str, Any]
TYPES = {"boolean": "true or false", "object": "mapping", "string": "text", "null": "null"}
HEAD = """# What a suite can say

Printed by `python -m bench schema --format md`. A suite is the first table; what its keys hold
stands below. Text with `*` is a glob; text that YAML would read as something else needs quotes.
"""
REFERENCE = re.compile(r"#/\$defs/(\w+)")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def markdown(schema: Part) -> str:
    """Write a table of keys for the suite and for each of its parts, as they are met."""
    parts: dict[str, Part] = {"Suite": schema}
    for name in (queue := ["Suite"]):
        for key in REFERENCE.findall(json.dumps(parts[name]["properties"])):
            if key not in parts:
                parts[key] = schema["$defs"][key]
                queue.append(key)
    return "\n".join([HEAD, *(_section(name, part) for name, part in parts.items())])


def _section(name: str, part: Part) -> str:
    lines = [f"## {name}", "", " ".join(part["description"].split()), ""]
    lines += ["| key | takes | default | |", "|---|---|---|---|"]
    required = part.get("required", ())
    for key, value in part["properties"].items():
        default = "required" if key in required else _default(value)
        cells = [f"`{key}`", _takes(value), default, _described(value)]
        lines.append(
            f"| {' | '.join(cell.replace('|', '&#124;').replace('<', '&lt;') for cell in cells)} |"
        )
    if part.get("additionalProperties") is True:
        lines.append("| any other | | | an option of the dataset or the architecture |")
    return "\n".join([*lines, ""])


def _default(value: Part) -> str:
    """Write the default, which a short form has one level deeper."""
    for one in (value, *value.get("anyOf", ())):
        if "default" in one:
            named = one["default"]
            if isinstance(named, dict) and "name" in named:
                named = named["name"]
            return f"`{json.dumps(named, ensure_ascii=False)}`" if named != "" else ""
    return ""


def _described(value: Part) -> str:
    for one in (value, *value.get("anyOf", ())):
        if "description" in one:
            return str(one["description"])
    return ""


def _takes(value: Part) -> str:
    """Say what values are allowed."""
    return " or ".join(dict.fromkeys(_alternatives(value)))


def _alternatives(value: Part) -> list[str]:
    if "$ref" in value:
        [name] = REFERENCE.findall(value["$ref"])
        return [f"[{name}](#{name.lower()})"]
    if "anyOf" in value or "oneOf" in value:
        parts = value.get("anyOf") or value["oneOf"]
        return [kind for part in parts for kind in _alternatives(part)]
    if "enum" in value or "const" in value:
        return [f"`{one}`" for one in value.get("enum") or [value["const"]]]
    if isinstance(value["type"], list):
        return [TYPES[one] for one in value["type"]]
    if value["type"] == "array":
        return [_list(value)]
    if value["type"] == "object":
        return [_mapping(value)]
    bounds = " and ".join(f"{sign} {value[key]}" for key, sign in BOUNDS.items() if key in value)
    return [f"{TYPES.get(value['type'], value['type'])} {bounds}".strip()]


def _list(value: Part) -> str:
    if "prefixItems" in value:
        return f"[{', '.join(map(_takes, value['prefixItems']))}]"
    return f"list of {_grouped(value['items'])}"


def _mapping(value: Part) -> str:
    inner = [*value.get("patternProperties", {}).values(), value.get("additionalProperties")]
    kinds = [_grouped(one) for one in inner if isinstance(one, dict) and one]
    return f"mapping to {kinds[0]}" if kinds else "mapping"


def _grouped(value: Part) -> str:
    """Write what items are, in brackets where they are several."""
    kinds = _takes(value)
    return f"({kinds})" if " or " in kinds else kinds
