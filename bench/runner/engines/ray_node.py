"""A case on the node that Ray chose for it."""

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.runner.task import Options, Outcome, Task

ORPHAN_S = 600.0  # for a case to stop after its worker was lost, or for its lease to lapse
ORPHAN_POLL_S = 1.0


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
    from bench.machine.lease import Watch
    from bench.records.case_folder import CaseFolder
    from bench.runner.elsewhere import freed
    from bench.runner.engines.on_node import run_here

    watch = Watch(CaseFolder(task.folder).lease)
    deadline = time.monotonic() + (ORPHAN_S if parcel.was_lost else 0)
    while True:
        outcome = run_here(task, parcel.options, parcel.timeout_s, parcel.gpus_per_case)
        if outcome.status != "held" or time.monotonic() > deadline:
            return outcome
        while not freed(watch) and time.monotonic() < deadline:
            time.sleep(ORPHAN_POLL_S)
