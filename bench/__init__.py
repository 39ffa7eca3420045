"""A benchmark harness for semantic segmentation.

`bench.load("results/")` gives every record as one tidy DataFrame.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.frame import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import pandas only where it is asked for."""
    if name == "load":
        from bench.frame import load

        return load
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
