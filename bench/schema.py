"""What all parts of a suite's schema share, and pydantic's faults in our words."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from bench.errors import Fault, Faults
from bench.lookup import unknown

Size = tuple[PositiveInt, PositiveInt]  # (H, W) in pixels
Fraction = Annotated[float, Field(ge=0, lt=1)]


ITEMS = {"terms": "loss"}  # what the items of a list are called
Cache = Literal["auto", "ram", "disk", "none"]


class Frozen(BaseModel):
    """Data that is validated once and never changes; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Side(Frozen):
    """A size by one side, the other following: images keep their shape."""

    longest: PositiveInt | None = Field(None, description="pixels")
    shortest: PositiveInt | None = Field(None, description="pixels")

    @model_validator(mode="after")
    def _one_of_them(self) -> "Side":
        if (self.longest is None) == (self.shortest is None):
            raise ValueError("Give [H, W], {longest: pixels} or {shortest: pixels}.")
        return self


def sized(size: "Size | Side | None", height: int, width: int) -> Size:
    """Return the (H, W) that an image of height x width is resized to; None leaves it."""
    if size is None:
        return height, width
    if not isinstance(size, Side):
        return size
    wanted, side = size.longest, max(height, width)
    if size.shortest is not None:
        wanted, side = size.shortest, min(height, width)
    assert wanted is not None
    return max(1, round(height * wanted / side)), max(1, round(width * wanted / side))


def size_text(size: "Size | Side | None") -> str:
    """Name a size in a protocol."""
    if size is None:
        return "as stored"
    if isinstance(size, Side):
        name = "longest" if size.shortest is None else "shortest"
        return f"{name} side {size.longest or size.shortest}"
    return f"{size[0]}x{size[1]}"


def describe(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Turn pydantic's errors into faults in our words, one a place."""
    schema = model.model_json_schema()
    faults: dict[tuple[str | int, ...], list[str]] = {}
    for item in error.errors():
        loc, given = _place(item["loc"]), item["input"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Faults):
            for fault in cause.faults:
                faults.setdefault((*loc, *fault.path), []).append(fault.message)
            continue
        match item["type"]:
            case "extra_forbidden":
                message = unknown("key", str(loc[-1]), _allowed(schema, item["loc"][:-1]))
            case "tuple_type":
                message = f"Give a list, not {given!r}."
            case "model_type" | "model_attributes_type" | "dict_type":
                message = f"Give keys and values, not {given!r}."
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
    return [Fault(loc, " Or: ".join(dict.fromkeys(messages))) for loc, messages in faults.items()]


def _place(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Drop the branch of a union that pydantic appends to a place."""
    branch = re.compile(
        r"^(constrained-)?(int|float|str)$|^(literal|tuple|function|nullable)\[|^(Normalize|Side)$"
    )
    while loc and isinstance(loc[-1], str) and branch.match(loc[-1]):
        loc = loc[:-1]
    return loc


def _allowed(schema: Mapping[str, Any], loc: tuple[str | int, ...]) -> list[str]:
    """List the keys that a JSON Schema allows at a place."""
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
    """Return what a $ref, or the first choice that is not null, stands for."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        else:
            node = next((n for n in node["anyOf"] if n.get("type") != "null"), {})
    return node
