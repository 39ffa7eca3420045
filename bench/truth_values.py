"""Refusing true and false if a suite needs a number or text; pydantic takes them for 1 and 0."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


@dataclass(frozen=True)
class TruthValue:
    """True or false in a place that takes neither; no schema accepts it."""

    value: bool

    def __repr__(self) -> str:
        return str(self.value).lower()


def mark_truth_values(cls: type[BaseModel], value: Any) -> Any:
    """Replace true and false by `TruthValue` where a field takes no bool; lists and tables too.

    For `model_validator(mode="before")`; validation then refuses them together with other faults.
    """
    if not isinstance(value, dict):
        return value
    refusing = _refusing(cls)
    marked = {
        name: _marked(given, refusing[name]) for name, given in value.items() if name in refusing
    }
    return value | marked


@cache
def _refusing(cls: type[BaseModel]) -> dict[str, bool]:
    """Return the fields that take no bool, and whether each is a table."""
    return {
        name: _is_mapping(field.annotation)
        for name, field in cls.model_fields.items()
        if not _types_in(field.annotation) & {bool, Any}
    }


def _marked(given: Any, is_table: bool) -> Any:
    if isinstance(given, bool):
        return TruthValue(given)
    if isinstance(given, list | tuple):
        return [TruthValue(item) if isinstance(item, bool) else item for item in given]
    if is_table and isinstance(given, dict):
        return {k: TruthValue(v) if isinstance(v, bool) else v for k, v in given.items()}
    return given


def _types_in(annotation: Any) -> set[Any]:
    """Return all types in an annotation, such as int and None of int | None."""
    if get_origin(annotation) is Literal:
        return set(map(type, get_args(annotation)))
    found = {annotation} if isinstance(annotation, type) or annotation is Any else set()
    return found.union(*(_types_in(inside) for inside in get_args(annotation)))


def _is_mapping(annotation: Any) -> bool:
    """Whether an annotation is dict[…], or one of its choices is."""
    return get_origin(annotation) is dict or any(map(_is_mapping, get_args(annotation)))
