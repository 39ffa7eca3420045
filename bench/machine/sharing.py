"""How many cases run on this machine now, whoever started them.

Each running case has a file in a folder of the machine, which $BENCH_RUNNING names. Containers
count each other if they share that folder and the numbers of processes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.machine.process import has_ended, started

VARIABLE, FOLDER = "BENCH_RUNNING", "/tmp/bench-running"


@contextmanager
def listed() -> Iterator[None]:
    """Count this process as a running case while the body runs."""
    file = _folder() / f"{os.getpid()}-{started(os.getpid())}"
    with suppress(OSError):  # then the others do not know of it
        _folder().mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # another user's, who did so
            _folder().chmod(0o1777)
        file.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def num_running() -> int:
    """Count the cases that run on this machine, this one included."""
    others = 0
    with suppress(OSError):
        for name in os.listdir(_folder()):
            pid, _, start = name.partition("-")
            if not pid.isdecimal() or int(pid) == os.getpid():
                continue
            if has_ended(int(pid), int(start) if start.isdecimal() else None):
                with suppress(OSError):
                    (_folder() / name).unlink(missing_ok=True)
            else:
                others += 1
    return 1 + others


def _folder() -> Path:
    return Path(os.environ.get(VARIABLE) or FOLDER)
