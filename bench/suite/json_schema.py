"""The JSON Schema of suite files, for editors, and the reference page made from it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from bench.suite.loss import CrossEntropy, Dice, Focal
from bench.suite.optimizer import SGD, Adam, AdamW, Constant, Cosine, Poly, Step
from bench.suite.suite import Suite

TYPES = {"boolean": "true or false", "object": "mapping", "string": "text", "null": "null"}
HEAD = """# Suite reference

Printed by `python -m bench schema --format md`. The first table lists the keys of a suite; the
tables below it list the keys of its parts. Text with `*` is a glob. Quote text that YAML would read
as something else.
"""
REFERENCE = re.compile(r"#/\$defs/(\w+)")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Part = Mapping[str, Any]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of suite files, including the accepted short forms."""
    schema = Suite.model_json_schema()
    parts = schema["$defs"]
    recipe = parts["Recipe"]["properties"]
    for key, specs in (
        ("optimizer", (Adam, AdamW, SGD)),
        ("schedule", (Constant, Poly, Cosine, Step)),
        ("loss", (CrossEntropy, Focal, Dice)),
    ):
        names = [str(spec.model_fields["name"].default) for spec in specs]
        recipe[key] = {"anyOf": [{"enum": names}, recipe[key]]}
        one_of = recipe[key]["anyOf"][1]
        one_of["anyOf"] = one_of.pop("oneOf")  # a change of a recipe may omit the name
        del one_of["discriminator"]
    terms = parts["Sum"]["properties"]["terms"]
    names_of_terms = recipe["loss"]["anyOf"][0]
    terms |= {"minItems": 1, "items": {"anyOf": [names_of_terms, terms["items"]]}}
    recipe["loss"]["anyOf"].append({key: terms[key] for key in ("type", "minItems", "items")})
    for loss in ("CrossEntropy", "Focal"):
        parts[loss]["properties"]["class_weights"]["anyOf"].insert(0, {"const": "none"})
    transform = recipe["augment"]["items"]
    transform["additionalProperties"] = {"type": ["object", "null"]}
    one = {"anyOf": [{"type": "string"}, transform]}
    recipe["augment"] = {"anyOf": [one, recipe["augment"] | {"items": one}]}
    part = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}
    part["propertyNames"] = {"enum": ["encoder", "model"]}
    weights = parts["ModelSpec"]["properties"]["weights"]
    weights["anyOf"] = [{"type": ["string", "null"]}, part]
    del parts["Weights"]
    columns = parts["Table"]["properties"]["columns"]
    columns["items"] = {"anyOf": [{"type": "string"}, columns["items"]]}
    datasets = schema["properties"]["datasets"]
    datasets["patternProperties"] = {
        pattern: {"anyOf": [{"type": "null"}, spec]}
        for pattern, spec in datasets["patternProperties"].items()
    }
    return schema


def markdown(schema: Part) -> str:
    """Write one table of keys for the suite and one for each part, in order of first use."""
    parts: dict[str, Part] = {"Suite": schema}
    for name in (queue := ["Suite"]):
        for key in REFERENCE.findall(json.dumps(parts[name]["properties"])):
            if key not in parts:
                parts[key] = schema["$defs"][key]
                queue.append(key)
    return "\n".join([HEAD, *(_section(name, part) for name, part in parts.items())])


def _section(name: str, part: Part) -> str:
    lines = [f"## {name}", "", " ".join(part["description"].split()), ""]
    lines += ["| key | value | default | description |", "|---|---|---|---|"]
    required = part.get("required", ())
    for key, value in part["properties"].items():
        default = "required" if key in required else _default(value)
        cells = [f"`{key}`", _takes(value), default, _described(value)]
        lines.append(
            f"| {' | '.join(cell.replace('|', '&#124;').replace('<', '&lt;') for cell in cells)} |"
        )
    if part.get("additionalProperties") is True:
        owner = {"DatasetSpec": "dataset", "ModelSpec": "architecture"}[name]
        lines.append(f"| any other key | | | an option of the {owner} |")
    return "\n".join([*lines, ""])


def _default(value: Part) -> str:
    """Write the default; if a key has a short form, the schema holds it one level deeper."""
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
    """Describe the allowed values."""
    return " or ".join(dict.fromkeys(_alternatives(value)))


def _alternatives(value: Part) -> list[str]:
    if "$ref" in value:
        [name] = REFERENCE.findall(value["$ref"])
        return [f"[{name}](#{name.lower()})"]
    if "anyOf" in value or "oneOf" in value:
        parts = value.get("anyOf") or value["oneOf"]
        return [kind for part in parts for kind in _alternatives(part)]
    if "enum" in value or "const" in value:
        choices = value.get("enum") or [value["const"]]
        return [f"`{one if isinstance(one, str) else json.dumps(one)}`" for one in choices]
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
    """Describe the items of a list, in brackets if there are several kinds."""
    kinds = _takes(value)
    return f"({kinds})" if " or " in kinds else kinds
