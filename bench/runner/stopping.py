"""Stopping a run after it has saved: Ctrl-C, the signals of clusters, a deadline."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TERMINATING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Stop:
    """Whether a run is to stop, and why."""

    deadline: float | None
    asked: bool = False
    terminated: bool = False  # by a signal that clusters or a closed terminal send
    signal: str | None = None  # the first of those, by its name

    def is_due(self) -> bool:
        """Return whether to stop after saving."""
        return self.asked or (self.deadline is not None and time.monotonic() > self.deadline)


@contextmanager
def stopping(
    say: Callable[[str], None] = lambda text: None, max_time_s: float | None = None
) -> Iterator[Stop]:
    """Let the first Ctrl-C and the signals in `TERMINATING` stop after saving.

    The second Ctrl-C stops at once. A signal that is ignored, as nohup does with SIGHUP, stays so.
    In a thread other than the main one, which gets no signals, only the time counts.
    """
    stop = Stop(None if max_time_s is None else time.monotonic() + max_time_s)

    def on_interrupt(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        say(
            "Stopping once this step is saved; the same command then goes on from there. Press "
            "Ctrl-C again to stop at once."
        )

    def on_terminate(number: int, frame: object) -> None:
        stop.asked = stop.terminated = True
        name = signal.Signals(number).name
        stop.signal = stop.signal or name
        say(f"Received {name}: stopping once this step is saved; the same command then goes on.")

    asked = [number for number in TERMINATING if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {signal.SIGINT: on_interrupt, **dict.fromkeys(asked, on_terminate)}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
