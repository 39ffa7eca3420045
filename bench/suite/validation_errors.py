"""Translate pydantic's errors into our messages."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)

from bench.errors import Fault, Faults
from bench.lookup import unknown
from bench.text import plural
from bench.truth_values import TruthValue

ITEMS = {"terms": "loss"}  # key of a list -> what an item of it is called in messages


def describe(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Translate pydantic's errors into faults, one per place."""
    schema = model.model_json_schema()
    faults: dict[tuple[str | int, ...], list[str]] = {}
    for item in error.errors():
        loc, given = _place(item["loc"]), item["input"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Faults):
            for fault in cause.faults:
                faults.setdefault((*loc, *fault.path), []).append(fault.message)
            continue
        if isinstance(given, TruthValue):
            kind = "text" if item["type"] == "string_type" else "a number"
            faults.setdefault(loc, []).append(f"Give {kind}, not {given}.")
            continue
        match item["type"]:
            case "extra_forbidden":
                message = unknown("key", str(loc[-1]), _allowed(schema, item["loc"][:-1]))
            case "tuple_type":
                message = f"Give a list, not {given!r}."
            case "model_type" | "model_attributes_type" | "dict_type":
                message = (
                    "Nothing is given; give keys and values, or remove the key."
                    if given is None
                    else f"Give keys and values, not {given!r}."
                )
            case "too_short":
                message = f"Give at least {plural(item['ctx']['min_length'], 'value')}."
            case "too_long" if isinstance(given, list | tuple | dict):
                message = f"Give at most {plural(item['ctx']['max_length'], 'value')}."
            case "string_pattern_mismatch":
                message = (
                    "A name has letters, digits, +, - and _, and begins with a letter or digit; "
                    f"not {given!r}."
                )
            case "string_too_long":
                message = f"Use at most {item['ctx']['max_length']} letters, not {len(given)}."
            case "string_type" if isinstance(given, int | float):
                message = f"Must be text; put it in quotes: '{given}'."
            case "int_type" | "int_parsing" | "int_from_float":
                message = f"Give a whole number, not {given!r}."
            case "float_type" | "float_parsing":
                message = f"Give a number, not {given!r}."
            case "bool_type" | "bool_parsing":
                message = f"Give true or false, not {given!r}."
            case "missing" if isinstance(loc[-1], int):
                loc, message = loc[:-1], "A value is missing in this list."
            case "missing":
                message = f"The key {str(loc[-1])!r} is required."
            case "union_tag_invalid":
                known = re.findall(r"'(\w+)'", item["ctx"]["expected_tags"])
                key = next(str(part) for part in reversed(loc) if isinstance(part, str))
                kind = ITEMS.get(key, key)
                message = unknown(kind, str(item["ctx"]["tag"]), known)
                loc = (*loc, "name")
            case "union_tag_not_found":
                message = "Give its name: {name: …}."
            case "value_error":
                message = str(cause)
            case "literal_error" if isinstance(given, str):
                known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
                message = unknown(str(loc[-1]), given, known)
            case _:
                message = f"{item['msg']}, not {given!r}."
        faults.setdefault(loc, []).append(message)
    return [
        Fault(loc, " Or: ".join(dict.fromkeys(messages)))
        for loc, messages in faults.items()
        if not any(_is_inside(other, loc) for other in faults)
    ]


def _is_inside(place: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    """Whether a place lies below another; what is said of the other follows from its faults."""
    return len(place) > len(other) and place[: len(other)] == other


def _place(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Remove the branch of a union that pydantic appends to a place."""
    branch = re.compile(
        r"^(constrained-)?(int|float|str)$|^(literal|tuple|function|nullable)\[|^(Normalize|Side)$"
    )
    while loc and isinstance(loc[-1], str) and branch.match(loc[-1]):
        loc = loc[:-1]
    return loc


def _allowed(schema: Mapping[str, Any], loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys that a JSON Schema allows at a place."""
    node = _follow(schema, schema)
    for part in loc:
        named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
        rest = named[0]
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            node = node.get("items", {})
        else:
            child = node.get("properties", {}).get(part, rest)
            node = child if isinstance(child, dict) else {}
        node = _follow(schema, node)
    return list(node.get("properties", {}))


def _follow(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow every $ref, and in an anyOf the first choice that is not null."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        else:
            node = next((n for n in node["anyOf"] if n.get("type") != "null"), {})
    return node
