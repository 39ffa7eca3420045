"""The process of a case, as its engine sees it, and how it is started."""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from io import BufferedReader, BufferedWriter
from typing import Protocol

from bench.errors import UserError
from bench.machine.world import Place
from bench.runner.task import Options, Task

CAN_FORK = sys.platform == "linux"  # elsewhere libraries do not survive a fork
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Message:
    """What the process of a case is told.

    cores: that it may use; () for all.
    threads: of torch.
    environment: all of its environment variables.
    path: where Python looks for modules.
    place: among the processes that train the case together; None if there is only this one.
    """

    task: Task
    options: Options
    cores: tuple[int, ...]
    threads: int
    environment: Mapping[str, str]
    path: Sequence[str]
    place: Place | None = None


class CaseProcess(Protocol):
    """The process of a case.

    stdin: the case saves and stops when it is closed.
    returncode: None while it runs; minus the number of the signal that ended it.
    """

    pid: int
    stdin: BufferedWriter
    stdout: BufferedReader
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""


def start(message: Message) -> CaseProcess:
    """Start the process of a case."""
    process = _forked() if CAN_FORK else _spawned(message.environment)
    # The child has its own should_stop; ours cannot be pickled.
    told = replace(message, options=replace(message.options, should_stop=bool))
    with suppress(BrokenPipeError):
        process.stdin.write(pickle.dumps(told))
        process.stdin.flush()
    return process


def _spawned(environment: Mapping[str, str]) -> CaseProcess:
    process: CaseProcess = subprocess.Popen(  # type: ignore[assignment]
        [sys.executable, "-m", "bench.runner.engines.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_with_path(environment),
        start_new_session=True,  # Ctrl-C in a terminal reaches the engine alone
    )
    return process


def _with_path(environment: Mapping[str, str]) -> dict[str, str]:
    """Let a new process import what this one imports."""
    return {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}


class Forked:
    """The process of a case that the server forked."""

    def __init__(self, stdin: int, stdout: int, end: int) -> None:
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self.end = os.fdopen(end, "rb")
        self.pid = int(self.end.readline() or 0)  # 0: the server has ended
        self.returncode: int | None = None
        os.set_blocking(end, False)

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        if self.returncode is None:
            told = self.end.read()
            if told is not None:  # it has ended; b"": the server has, too
                self.returncode = int(told or 1)
                self.end.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _forked() -> Forked:
    """Ask the server for a new process.

    Raises:
        UserError: if the server does not start.
    """
    for server in (_server, _restarted):
        stdin, write = os.pipe()
        read, stdout = os.pipe()
        end, told = os.pipe()
        given = (stdin, stdout, told)
        try:
            socket.send_fds(server().requests, [b"+"], given)
        except BrokenPipeError:
            sent = False
        else:
            sent = True
        for number in given:
            os.close(number)
        process = Forked(write, read, end) if sent else None
        if process is not None and process.pid > 0:
            return process
    raise UserError("The process that starts the cases has ended; use --engine in-process.")


def begin_imports() -> None:
    """Start the server, so that what it imports is there when the first case starts."""
    if CAN_FORK:
        _server()


@dataclass(frozen=True)
class Server:
    """The process that forks the cases; it ends when its socket is closed."""

    requests: socket.socket
    process: "subprocess.Popen[bytes]"


@cache
def _server() -> Server:
    """Start the server, once."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.runner.engines.server", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_with_path(os.environ | ONE_THREAD),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return Server(ours, process)


def _restarted() -> Server:
    """Start another server, for example because one was killed."""
    _server().requests.close()
    _server().process.wait()
    _server.cache_clear()
    return _server()
