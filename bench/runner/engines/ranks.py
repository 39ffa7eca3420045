"""How the processes of a case ended, and which of them decides what became of it."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine.world import LOST_CODE, Place
from bench.runner.engines.case_process import CaseProcess
from bench.runner.task import Status

KILLED_S = 0.01  # between looks whether a killed process has ended
GRACE_S = 10.0  # for the first process to end by itself after another failed
Answer = tuple[Status, str | None, float, tuple[str, ...]]


@dataclass(frozen=True)
class Ended:
    """How a process of a case ended; answer: its outcome, None if it wrote none."""

    rank: int
    code: int
    answer: Answer | None

    @property
    def died(self) -> bool:
        """Whether it ended without a word, and not because another had ended."""
        return self.answer is None and self.code != LOST_CODE

    @property
    def failed(self) -> bool:
        """Whether it ended in a way that keeps the others from going on."""
        return self.answer is None or self.answer[0] == "failed"


@dataclass
class Ranks:
    """The processes of a case, the first one first.

    store: a folder where several meet.
    cause: the one that another process's failure is due to.
    """

    processes: Sequence[CaseProcess]
    store: Path | None = None
    ends: dict[int, Ended] = field(default_factory=dict)
    cause: Ended | None = None
    failing_since: float | None = None

    def ask_to_stop(self) -> None:
        """Ask the first one to save and stop; it tells the others."""
        with suppress(BrokenPipeError):
            self.processes[0].stdin.close()

    def kill(self) -> None:
        """Kill them and all that they started."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send all a signal."""
        for process in self.processes:
            process.send_signal(number)

    def decided(self, *, killed: bool) -> Ended | None:
        """Return the end that says what became of the case; None while the first process runs.

        If another one dies, the first is killed; if it fails, the first has some time to end by
        itself, because it may fail for the same reason and know more.

        Args:
            killed: whether the engine killed them.
        """
        for rank, process in enumerate(self.processes):
            if rank not in self.ends and process.poll() is not None:
                self.ends[rank] = _end(rank, process)
        first = self.ends.get(0)
        if first is not None and (first.answer or killed or len(self.processes) == 1):
            return first
        if self.cause is not None or killed:
            return first and self.cause
        failed = [end for end in self.ends.values() if end.failed]
        if not failed:
            return None
        self.failing_since = self.failing_since or time.monotonic()
        cause = next((end for end in failed if end.died), None)
        if cause is None and time.monotonic() - self.failing_since > GRACE_S:
            cause = min(failed, key=lambda end: (end.answer is None, end.rank))
        elif cause is None and first is not None:  # it lost another, which has said why
            cause = next((end for end in failed if end.answer), None)
        if cause is not None:
            self.cause = cause
            self.kill()
        return first and self.cause

    def close(self) -> None:
        """Kill what is left, and remove what they met by."""
        self.kill()
        for rank, process in enumerate(self.processes):
            while process.poll() is None:
                time.sleep(KILLED_S)
            if rank not in self.ends:
                self.ends[rank] = _end(rank, process)
            with suppress(BrokenPipeError):
                process.stdin.close()
        if self.store is not None:
            shutil.rmtree(self.store, ignore_errors=True)


def _end(rank: int, process: CaseProcess) -> Ended:
    """Read what a process that has ended wrote."""
    with suppress(ProcessLookupError):  # its children may hold its end of the pipe
        os.killpg(process.pid, signal.SIGKILL)
    with process.stdout as stream:
        text = stream.read()
    answer: Answer | None = None
    with suppress(ValueError):  # the answer is missing or incomplete
        status, reason, seconds, notes = json.loads(text)
        answer = status, reason, seconds, tuple(notes)
    code = process.returncode
    assert code is not None
    return Ended(rank, code, answer)


def meeting(gpus: Sequence[str], size: int) -> tuple[Path | None, list[Place | None]]:
    """Return a new folder where the processes of a case meet, and the place of each.

    One process meets nobody. The folder is on this machine: a shared one may not lock files.

    Args:
        gpus: of the processes; none if they compute on CPUs.
    """
    if size == 1:
        return None, [None]
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    own = len(set(gpus)) == size
    backend = "nccl" if own else "gloo"
    return folder, [Place(rank, size, folder / "store", backend) for rank in range(size)]  # type: ignore[arg-type]
