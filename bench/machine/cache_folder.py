"""The folder for files that can be made again: decoded images, hashes, class counts."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $BENCH_CACHE, or else `bench` in the user's cache folder."""
    if os.environ.get("BENCH_CACHE"):
        return Path(os.environ["BENCH_CACHE"])
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "bench"
