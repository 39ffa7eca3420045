"""Processes of this machine: whether one still runs, without taking another for it."""

import os
from pathlib import Path


def started(pid: int) -> int | None:
    """Return when a process started, in ticks of this machine; None if that is unknown."""
    return _stat(pid)[0]


def has_ended(pid: int, start: int | None) -> bool:
    """Return whether the process that had this number since `start` no longer runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    now, state = _stat(pid)
    return state == "Z" or (now is not None and now != start)


def _stat(pid: int) -> tuple[int | None, str]:
    """Return when a process started, and its state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None, ""
    state, *fields = text[text.rfind(")") + 2 :].split()
    return int(fields[18]), state
