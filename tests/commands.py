"""Run the command line in this process or, as users do, in a process of its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest import mock

from conftest import ROOT


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def bench(*args: object, code: int = 0, cwd: Path = ROOT, **env: str) -> Done:
    """Run a command in this process."""
    from bench.cli.app import main

    out, err, left = StringIO(), StringIO(), 0
    with chdir(cwd), mock.patch.dict(os.environ, env), redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as end:
            left = int(end.code or 0)
    return _checked(left, out.getvalue(), err.getvalue(), code)


def bench_process(*args: object, code: int = 0, **env: str) -> Done:
    """Run a command line as a user would type it."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )
    return _checked(done.returncode, done.stdout, done.stderr, code)


def _checked(left: int, stdout: str, stderr: str, code: int) -> Done:
    assert left == code, stdout + stderr
    assert "Traceback" not in stdout + stderr
    return Done(stdout, stderr)


class Forked:
    """`bench` in a process of its own, forked from one that has imported everything.

    It behaves like a process that a user starts, but starts in milliseconds. Output goes to a file.
    """

    def __init__(self, *args: object, out: Path, plant: str = "") -> None:
        """Start it.

        Args:
            out: the file for its output.
            plant: Python code to run before the command.
        """
        self.out = out
        words = [str(arg) for arg in args]
        self.process = FORKS.Process(target=_command, args=(words, str(out), plant))
        self.process.start()

    def wait(self, timeout: float = 300) -> int:
        """Wait and return the exit code, which is negative for a signal."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it still runs"
        return self.process.exitcode

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        assert self.process.pid is not None
        if self.is_running:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it at once, but not the processes it started."""
        self.process.kill()
        self.process.join()

    @property
    def text(self) -> str:
        """Its output so far."""
        return self.out.read_text()


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["bench.cli.commands.run", "bench.runner.run_case"])


def _command(args: list[str], out: str, plant: str) -> None:
    os.setsid()
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    exec(plant, {"os": os, "signal": signal})
    from bench.__main__ import main

    main(args)
