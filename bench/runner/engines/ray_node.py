"""A case on the node that Ray chose for it."""

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.machine.lease import Watch
from bench.records.case_folder import CaseFolder
from bench.runner.elsewhere import freed
from bench.runner.task import Options, Outcome, Task

FORMER_S = 600.0  # after that, the case is reported as held
FORMER_POLL_S = 1.0


@dataclass(frozen=True)
class Parcel:
    """What a node is told about a case.

    marker: a file that the node sees if it shares the folder of results.
    cwd, path: the folder in which the driver was started, and where its Python looks for modules.
    was_lost: whether an earlier process of the case may still be about to stop.
    """

    task: Task
    options: Options
    timeout_s: float | None
    gpus_per_case: int
    marker: Path
    cwd: str
    path: Sequence[str]
    was_lost: bool


def run_on_node(parcel: Parcel) -> Outcome:
    """Run one case on this node; the local engine does.

    `ray.cancel` comes as SIGINT, upon which the case saves and stops.
    """
    task = parcel.task
    if not parcel.marker.exists():
        reason = (
            f"{socket.gethostname()} does not see {task.folder.parent} as the driver does. Put the "
            "results on a file system that all nodes share (--out)."
        )
        return Outcome(task.case, "stopped", reason)
    with suppress(OSError):  # relative paths of data are not found then, which is said
        os.chdir(parcel.cwd)
    sys.path[:] = dict.fromkeys([*parcel.path, *sys.path])
    from bench.runner.engines.on_node import run_here

    if parcel.was_lost:
        await_former(task)
    return run_here(task, parcel.options, parcel.timeout_s, parcel.gpus_per_case)


def await_former(task: Task) -> None:
    """Wait until the process of a case whose worker was lost has ended, or its host was silent."""
    deadline, watch = time.monotonic() + FORMER_S, Watch(CaseFolder(task.folder).lease)
    while not freed(watch) and time.monotonic() < deadline:
        time.sleep(FORMER_POLL_S)
