"""What a stage finds: rows of a table."""

from typing import Any

Row = dict[str, Any]


class Skipped(Exception):
    """A stage has nothing to measure here, and says why."""


def goal(limit: float | None, found: float, *, at_most: bool = False) -> Row:
    """Return the cells that say what a figure should be, and whether it is."""
    if limit is None:
        return {}
    return {"goal": limit, "reached": found <= limit if at_most else found >= limit}
