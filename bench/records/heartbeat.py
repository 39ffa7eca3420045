"""The heartbeat of a running case, which also stops it on request."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bench.machine.files import CannotWrite
from bench.machine.sharing import num_running
from bench.records.case_folder import CaseFolder

BEAT_S = 1.0


class Interrupted(Exception):
    """The case stopped because it was asked to, where the next run can continue."""


class Heartbeat:
    """Writes `alive.json` once per second; called between steps, where a case can stop.

    num_sharing: the most cases that ran on this machine at once, this one included.
    """

    def __init__(self, folder: CaseFolder, should_stop: Callable[[], bool]) -> None:
        self.folder, self.should_stop = folder, should_stop
        self.progress: dict[str, Any] = {}
        self.last = time.monotonic()
        self.holder = folder.holder()
        self.num_sharing = num_running()

    def __call__(self, **progress: Any) -> None:
        """Note progress, write it if the last time was over a second ago, and stop if asked to.

        Raises:
            Interrupted: if the case was asked to stop.
            CannotWrite: if the case's folder is gone.
            Held: if another process took the case, because this one was silent for too long.
        """
        self.progress |= progress
        if time.monotonic() - self.last > BEAT_S:
            self.last = time.monotonic()
            self.folder.require(self.holder)
            self.num_sharing = max(self.num_sharing, num_running())
            with suppress(CannotWrite):  # a full disk is reported when results are written
                self.folder.beat(**self.progress)
        if self.should_stop():
            done, total = self.progress.get("step"), self.progress.get("num_steps")
            raise Interrupted(
                f"after step {done} of {total}" if total else "while preparing or scoring"
            )
