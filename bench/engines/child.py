"""The process of one case: reads its task from stdin, writes what became of it to stdout.

It goes on while stdin is open. What closes it, the engine or its end, makes the case stop after
saving; so does SIGTERM. Ctrl-C is left to the engine. All that libraries print goes to the log.
"""

import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
from dataclasses import replace
from typing import BinaryIO

from bench.record import CaseFolder


def main() -> None:
    """Run the task that stdin holds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    task, options, cores = pickle.load(sys.stdin.buffer)
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    _print_to(CaseFolder(task.folder))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the engine asks where a case hangs
    threading.Thread(target=_wait_for_end, args=(sys.stdin.buffer, stop), daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before torch counts them
    from bench.runner import run_case

    outcome = run_case(task, replace(options, should_stop=stop.is_set))
    with answer:
        fields = outcome.status, outcome.reason, outcome.seconds, outcome.notes
        json.dump(fields, answer)


def _print_to(folder: CaseFolder) -> None:
    """Send all output of this process to the case's log, as far as it can be written."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:  # run_case says so
        log = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())


def _wait_for_end(stream: BinaryIO, stop: threading.Event) -> None:
    """Ask the case to stop when nobody holds the other end any more."""
    stream.read()
    stop.set()


if __name__ == "__main__":
    main()
