"""The process of one case: reads its task from stdin and writes its outcome to stdout.

The case runs while stdin is open. If the engine closes it, or ends, the case saves and stops;
SIGTERM, SIGHUP and SIGUSR2 do the same. Ctrl-C is ignored: the engine handles it. Other output
goes to the log.
"""

import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.runner.engines.case_process import Message
    from bench.runner.task import Outcome

LOOK_S = 2.0
ORPHANED_S = 600.0  # without a heartbeat, after its engine ended, until a process ends itself


def main() -> None:
    """Run the task that stdin holds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: stop.set())
    from bench.records.case_folder import CaseFolder
    from bench.records.rank_folder import RankFolder

    # Copies, because loader workers close stdin and would wait for the thread that reads it.
    given, answer = os.dup(0), os.fdopen(os.dup(1), "w")
    with os.fdopen(given, "rb", closefd=False) as stream:
        try:
            message: Message = pickle.load(stream)
        except EOFError:  # the engine was killed before it had said what to do
            os._exit(1)
    task = message.task
    rank = message.place.rank if message.place else 0
    _redirect(task.folder, RankFolder(task.folder, rank=rank).log)
    os.environ.clear()
    os.environ.update(message.environment)
    sys.path[:] = message.path
    faulthandler.enable()
    # The engine asks where a case hangs. A cluster sends SIGUSR1 to the engine, too, which stops.
    faulthandler.register(signal.SIGUSR1)
    alive = CaseFolder(task.folder).alive
    threading.Thread(target=_wait_for_end, args=(given, stop, alive), daemon=True).start()
    if message.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, message.cores)
    import torch

    torch.set_num_threads(message.threads)  # before the first operation starts them
    outcome = _run(message, stop)
    with suppress(BrokenPipeError), answer:  # the engine may be gone
        fields = outcome.status, outcome.reason, outcome.seconds, outcome.notes
        json.dump(fields, answer)
    os._exit(0)  # do not wait for a hanging loader worker; the engine kills it


def _run(message: "Message", stop: threading.Event) -> "Outcome":
    """Run the case, alone or as one of several processes."""
    from bench.machine.world import ALONE, LOST_CODE, Lost, join
    from bench.runner.follow import follow_case
    from bench.runner.run_case import run_case

    try:
        world = join(message.place) if message.place else ALONE
        options = replace(message.options, should_stop=stop.is_set, world=world)
        return (run_case if world.writes else follow_case)(message.task, options)
    except Lost:
        traceback.print_exc()  # to the log; the engine finds out which process ended first
        sys.stderr.flush()
        os._exit(LOST_CODE)


def _redirect(folder: Path, log: Path) -> None:
    """Send all output of this process to the case's log, if it can be written."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:  # run_case says so
        file = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(file, output)


def _wait_for_end(pipe: int, stop: threading.Event, alive: Path) -> None:
    """Ask the case to stop when the other end of the pipe is closed.

    If it then hangs, nobody else is left to notice: its lease would never end. Of several
    processes, the first saves; another may wait for it in vain on its GPU.
    """
    while os.read(pipe, 1024):
        pass
    stop.set()
    seen, since = None, time.monotonic()
    while time.monotonic() - since < ORPHANED_S:
        time.sleep(LOOK_S)
        with suppress(OSError):
            now = alive.stat().st_mtime_ns
            if now != seen:
                seen, since = now, time.monotonic()
    os._exit(1)


if __name__ == "__main__":
    main()
