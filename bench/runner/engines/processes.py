"""The engine with one process per case: a crash or a hang affects only that case."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import torch

from bench.errors import UserError
from bench.machine.device import visible_gpus
from bench.machine.environment import num_cores
from bench.machine.memory import process_memory_mib
from bench.records.case_folder import CaseFolder
from bench.records.record import Failure, now
from bench.runner.elsewhere import known
from bench.runner.engines.case_process import CaseProcess, Message, start
from bench.runner.engines.engine import next_ready
from bench.runner.run_case import record_death
from bench.runner.task import Options, Outcome, Task
from bench.text import duration

POLL_S = 0.05
HANG_S = 1800.0  # without a heartbeat
LAST_WORDS_S = 1.0  # time to write the traceback of where it hangs
MOST_OF_A_LOOK_S = 5.0  # longer gaps mean that the machine was suspended
# They end a process that does not handle them yet.
STOPS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
CAUSES = {
    "SIGKILL": "sent by a user, or by the kernel because memory ran out",
    "SIGSEGV": "a fault in compiled code",
    "SIGBUS": "often because shared memory ran out (/dev/shm)",
    "SIGABRT": "compiled code called abort()",
}


@dataclass(frozen=True)
class Slot:
    """The part of the machine that one case uses: cores, and a GPU by its name.

    Empty if the case may use the whole machine.
    """

    cores: tuple[int, ...] = ()
    gpu: str | None = None


def divide(num: int, device: torch.device) -> list[Slot]:
    """Divide the machine among `num` cases that run at once: some cores and one GPU each.

    Raises:
        UserError: if there are fewer cores or GPUs than cases.
    """
    if num == 1:
        return [Slot()]
    can_pin = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_pin else list(range(num_cores()))
    if num > len(cores):
        raise UserError(f"--workers {num}: this machine has cores for at most {len(cores)}.")
    gpus: Sequence[str | None] = [None] * num
    if device.type == "cuda":
        visible = visible_gpus()
        gpus = visible[:num]
        if device.index is not None or len(gpus) < num:
            raise UserError(
                f"--workers {num} needs {num} GPUs or MIG slices, one per case; this machine has "
                f"{len(visible)}. Give fewer workers, and --device cuda without a number."
            )
    return [Slot(tuple(cores[i::num]), gpu) for i, gpu in enumerate(gpus)]


@dataclass
class Running:
    """A running case."""

    task: Task
    slot: Slot
    process: CaseProcess
    started: str = field(default_factory=now)
    killed: str | None = None  # why the engine killed it
    ran_s: float = 0.0
    silent_s: float = 0.0
    peak_memory_mib: float = 0.0
    looked: float = field(default_factory=time.monotonic)
    heartbeat: float | None = None  # when it was last written, by the clock of the file system

    def ask_to_stop(self) -> None:
        """Ask it to save and stop."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def kill(self) -> None:
        """Kill it and all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def look(self) -> None:
        """Read its heartbeat and its memory."""
        # If the machine was suspended, the case did not hang: count at most the time of one look.
        passed = min(time.monotonic() - self.looked, MOST_OF_A_LOOK_S)
        self.looked = time.monotonic()
        heartbeat = None
        with suppress(OSError):
            heartbeat = CaseFolder(self.task.folder).alive.stat().st_mtime
        self.ran_s += passed
        self.silent_s = self.silent_s + passed if heartbeat == self.heartbeat else 0.0
        self.heartbeat = heartbeat
        peak = process_memory_mib(self.process.pid)
        self.peak_memory_mib = max(self.peak_memory_mib, peak or 0.0)


def run(
    tasks: Iterable[Task],
    options: Options,
    announce: Callable[[Task], None],
    slots: Sequence[Slot] = (Slot(),),
    timeout_s: float | None = None,
) -> Generator[Outcome, None, None]:
    """Run each task in its own process, as many at once as there are slots.

    Args:
        timeout_s: a case that runs for longer is killed and has failed.
    """
    waiting, running, free = list(tasks), list[Running](), list(slots)
    stopping = interrupted = False
    try:
        with _killed_on_error(running):
            while running or (waiting and not stopping):
                stopping = stopping or interrupted or options.should_stop()
                while free and not stopping:
                    task = next_ready(waiting, (case.task for case in running))
                    if task is None:
                        break
                    waiting.remove(task)
                    outcome = known(task, options)
                    if outcome is not None:  # without starting a process to say so
                        yield outcome
                        continue
                    announce(task)
                    running.append(_start(task, options, free.pop(0)))
                for case in list(running):
                    if stopping:
                        case.ask_to_stop()
                    outcome = _look_after(case, timeout_s)
                    if outcome is not None:
                        running.remove(case)
                        free.append(case.slot)
                        interrupted = interrupted or outcome.status in ("interrupted", "stopped")
                        yield outcome
                time.sleep(POLL_S)
            if waiting and not interrupted:
                yield Outcome(waiting[0].case, "interrupted", "before it started")
    finally:
        with _killed_on_error(running):
            _end(running, timeout_s)


@contextmanager
def _killed_on_error(running: Sequence[Running]) -> Iterator[None]:
    """Kill the running cases if the body raises: a second Ctrl-C waits for nobody."""
    try:
        yield
    except GeneratorExit:  # the caller wants no more outcomes: cases may save and stop
        raise
    except BaseException:
        for case in running:
            case.kill()
        raise


def _end(running: list[Running], timeout_s: float | None) -> None:
    """Let running cases save and stop."""
    while running:
        for case in running:
            case.ask_to_stop()
        running[:] = [case for case in running if _look_after(case, timeout_s) is None]
        time.sleep(POLL_S)


def _start(task: Task, options: Options, slot: Slot) -> Running:
    """Start the process of a case and send it its task."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    if slot.gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = slot.gpu
        options = replace(options, device="cuda")
    if slot.cores:
        threads = min(threads, len(slot.cores))
        environment["OMP_NUM_THREADS"] = str(threads)
    message = Message(task, options, slot.cores, threads, environment, sys.path)
    return Running(task, slot, start(message))


def _look_after(case: Running, timeout_s: float | None) -> Outcome | None:
    """Return the outcome of a case; None while it runs."""
    if case.process.poll() is not None:
        return _outcome(case)
    case.look()
    if case.killed is None:
        if timeout_s is not None and case.ran_s > timeout_s:
            case.killed = f"ran for more than {duration(timeout_s)} (--timeout)"
        elif case.silent_s > HANG_S:
            case.killed = f"wrote no heartbeat for {duration(case.silent_s)}"
        if case.killed is not None:
            case.process.send_signal(signal.SIGUSR1)
            time.sleep(LAST_WORDS_S)
            case.kill()
    return None


def _outcome(case: Running) -> Outcome:
    """Read the outcome that a process wrote; record its death if it wrote none."""
    case.kill()  # its children may hold its end of the pipe
    with case.process.stdout as stream:
        answer = stream.read()
    case.ask_to_stop()  # closes its stdin
    with suppress(ValueError):  # the answer is missing or incomplete
        status, reason, seconds, notes = json.loads(answer)
        return Outcome(case.task.case, status, reason, seconds, tuple(notes))
    code = case.process.returncode
    assert code is not None
    known = {one.value: one.name for one in signal.Signals}  # without the real-time ones
    name = known.get(-code, f"signal {-code}") if code < 0 else None
    if name in STOPS and case.killed is None:
        return Outcome(case.task.case, "interrupted", f"by {name}")
    failure = Failure(
        signal=name,
        exit_code=code if code >= 0 else None,
        peak_memory_mib=case.peak_memory_mib,
        log_tail=CaseFolder(case.task.folder).log_tail(),
    )
    return record_death(case.task, case.started, _cause(case, name, failure), failure)


def _cause(case: Running, name: str | None, failure: Failure) -> str:
    """Describe why a process ended."""
    if case.killed is not None:
        return f"{case.killed}; see log.txt"
    if name is None:
        return f"its process ended with code {failure.exit_code}; see log.txt"
    cause = f", {CAUSES[name]}" if name in CAUSES else ""
    assert failure.peak_memory_mib is not None
    peak = f"peak memory {failure.peak_memory_mib / 1024:.1f} GiB"
    return f"its process was ended by {name}{cause} ({peak}); see log.txt"
