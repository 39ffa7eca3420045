"""A process that forks the process of each case, so that imports are paid for once.

It has imported all that a case needs, but touched no device and run no operation, and it has one
thread. So a forked case is as fresh as a new process. The server ends when its engine does.
"""

import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress

NUM_FDS = 3  # that come with a request: the case's stdin and stdout, and where its end is told
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Serve the engine at the other end of the socket that the first argument names."""
    for number in IGNORED:  # the engine decides when to stop
        signal.signal(number, signal.SIG_IGN)
    engine = socket.socket(fileno=int(sys.argv[1]))
    # What a case imports. Nothing of it may run an operation: that would start threads.
    import bench.runner.engines.child
    import bench.runner.run_case  # noqa: F401

    gc.freeze()  # these objects stay shared with the cases
    _serve(engine)
    os._exit(0)  # frozen objects cannot be taken down


def _serve(engine: socket.socket) -> None:
    """Fork a case for each request; a line tells its pid, and one its exit code."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    requests = engine.fileno()
    told: dict[int, int] = {}  # where the end of each case is told, by its pid
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(told)
        if requests in ready:
            request, fds, _, _ = socket.recv_fds(engine, 1, NUM_FDS)
            if not request:  # the engine has ended; its cases notice
                return
            stdin, stdout, end = fds
            pid = os.fork()
            if pid == 0:
                for other in (*told.values(), woken, wake):
                    os.close(other)
                engine.close()
                _become_case(stdin, stdout, end)
            told[pid] = end
            os.close(stdin)
            os.close(stdout)


def _reap(told: dict[int, int]) -> None:
    """Tell the exit code of each case that has ended."""
    for pid in list(told):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            end = told.pop(pid)
            _tell(end, os.waitstatus_to_exitcode(status))
            os.close(end)


def _tell(end: int, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(end, f"{number}\n".encode())


def _become_case(stdin: int, stdout: int, end: int) -> None:
    """Run a case in this process, which was just forked."""
    try:
        signal.set_wakeup_fd(-1)
        for caught in (*IGNORED, signal.SIGCHLD):
            signal.signal(caught, signal.SIG_DFL)
        os.setsid()  # Ctrl-C in a terminal reaches the engine alone
        for given, number in ((stdin, 0), (stdout, 1)):
            os.dup2(given, number)
            os.close(given)
        _tell(end, os.getpid())  # from now on, signals mean this case
        os.close(end)
        from bench.runner.engines.child import main as run_child

        run_child()
    except BaseException:  # never back into the server's loop
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
