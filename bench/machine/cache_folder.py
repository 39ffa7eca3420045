"""Where things are kept that can be made again: decoded images, hashes, class counts."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $BENCH_CACHE, else `bench` in the user's folder of caches."""
    if os.environ.get("BENCH_CACHE"):
        return Path(os.environ["BENCH_CACHE"])
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "bench"
