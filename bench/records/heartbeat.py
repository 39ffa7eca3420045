"""The heartbeat of a running case, which also stops it on request."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bench.machine.files import CannotWrite
from bench.machine.sharing import num_running
from bench.records.case_folder import CaseFolder

BEAT_S, MOST_S = 1.0, 10.0  # between beats: at first, and of a case that runs for long
BEATS = 100  # of a case until then


class Interrupted(Exception):
    """The case stopped because it was asked to, where the next run can continue."""


class Heartbeat:
    """Writes `alive.json` every few seconds; called between steps, where a case can stop.

    num_sharing: the most cases that ran on this machine at once, this one included.
    """

    def __init__(self, folder: CaseFolder, should_stop: Callable[[], bool]) -> None:
        self.folder, self.should_stop = folder, should_stop
        self.progress: dict[str, Any] = {}
        self.began: tuple[float, int] | None = None  # time and step of the first beat in training
        self.last = self.first = time.monotonic()
        self.num_sharing = num_running()

    def __call__(self, **progress: Any) -> None:
        """Note progress, write it if it is time, and stop if asked to.

        Raises:
            Interrupted: if the case was asked to stop.
            CannotWrite: if the case's folder is gone.
            Held: if another process took the case, because this one was silent for too long.
        """
        self.progress |= progress
        now = time.monotonic()
        if now - self.last > min(max(BEAT_S, (now - self.first) / BEATS), MOST_S):
            self.last = now
            self.folder.require()
            self.num_sharing = max(self.num_sharing, num_running())
            with suppress(CannotWrite):  # a full disk is reported when results are written
                self.folder.beat(**self.progress, left_s=self._left_s())
        if self.should_stop():
            done, total = self.progress.get("step"), self.progress.get("num_steps")
            raise Interrupted(
                f"after step {done} of {total}" if total else "while preparing or scoring"
            )

    def _left_s(self) -> float | None:
        """Estimate the time that training still takes, from what it took so far."""
        step, total = self.progress.get("step"), self.progress.get("num_steps")
        if step is None or total is None:
            return None
        if self.began is None:
            self.began = time.monotonic(), step
        since, first = self.began
        done = step - first
        return (total - step) * (time.monotonic() - since) / done if done > 0 else None
