"""The engine with one process per case: a crash or a hang affects only that case."""

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
from bench.machine.world import rank_name
from bench.records.case_folder import CaseFolder
from bench.records.rank_folder import RankFolder
from bench.records.record import Failure, now
from bench.runner.elsewhere import known
from bench.runner.engines.case_process import CaseProcess, Message, start
from bench.runner.engines.engine import next_ready
from bench.runner.engines.ranks import Ended, Ranks, meeting
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
    """The part of the machine that one case uses: cores, and GPUs by their names.

    Empty if the case may use the whole machine.

    size: processes that train the case together; each has a GPU and a share of the cores.
    """

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    size: int = 1

    def part(self, rank: int) -> "Slot":
        """Return what one of its processes uses."""
        most = len(self.cores) // self.size  # equal shares, because threads change numbers
        return Slot(self.cores[rank :: self.size][:most], self.gpus[rank : rank + 1])


def divide(num: int, device: torch.device, size: int = 1) -> list[Slot]:
    """Divide the machine among `num` cases that run at once: some cores and GPUs each.

    Args:
        size: processes, and GPUs, of each case.

    Raises:
        UserError: if there are fewer cores or GPUs than processes, or they cannot train together.
    """
    if num == size == 1:
        return [Slot()]
    asked = " with ".join(
        f"{flag} {of}" for flag, of in (("--workers", num), ("--gpus-per-case", size)) if of > 1
    )
    can_pin = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_pin else list(range(num_cores()))
    if num * size > len(cores):
        raise UserError(f"{asked}: this machine has cores for at most {len(cores)} processes.")
    gpus: Sequence[str] = []
    if device.type == "cuda":
        visible = visible_gpus()
        gpus = visible[: num * size]
        if device.index is not None or len(gpus) < num * size:
            raise UserError(
                f"{asked} needs {num * size} GPUs or MIG slices, {size} per case; this machine has "
                f"{len(visible)}. Give fewer, and --device cuda without a number."
            )
    if size > 1 and (device.type == "mps" or any(gpu.startswith("MIG-") for gpu in gpus)):
        what = "an Apple GPU" if device.type == "mps" else "MIG slices"
        raise UserError(f"--gpus-per-case {size}: several processes cannot train on {what}.")
    return [
        Slot(tuple(cores[i::num]), tuple(gpus[i * size : (i + 1) * size]), size) for i in range(num)
    ]


@dataclass
class Running:
    """A running case."""

    task: Task
    slot: Slot
    ranks: Ranks
    started: str = field(default_factory=now)
    killed: str | None = None  # why the engine killed it
    ran_s: float = 0.0
    silent_s: float = 0.0
    peak_memory_mib: float = 0.0
    looked: float = field(default_factory=time.monotonic)
    heartbeat: float | None = None  # when it was last written, by the clock of the file system

    @property
    def process(self) -> CaseProcess:
        """Its process, or the first of several, which writes what the case leaves."""
        return self.ranks.processes[0]

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
        for process in self.ranks.processes:
            peak = process_memory_mib(process.pid)
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
                    with suppress(OSError):  # of a process that was killed
                        CaseFolder(task.folder).alive.unlink(missing_ok=True)
                    announce(task)
                    running.append(_start(task, options, free.pop(0)))
                for case in list(running):
                    if stopping:
                        case.ranks.ask_to_stop()
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
            case.ranks.kill()
        raise


def _end(running: list[Running], timeout_s: float | None) -> None:
    """Let running cases save and stop."""
    while running:
        for case in running:
            case.ranks.ask_to_stop()
        running[:] = [case for case in running if _look_after(case, timeout_s) is None]
        time.sleep(POLL_S)


def _start(task: Task, options: Options, slot: Slot) -> Running:
    """Start the processes of a case and send them its task."""
    store, places = meeting(slot.gpus, slot.size)
    started = []
    for rank, place in enumerate(places):
        part, told = slot.part(rank), options
        environment, threads = dict(os.environ), torch.get_num_threads()
        if part.gpus:
            [environment["CUDA_VISIBLE_DEVICES"]] = part.gpus
            told = replace(options, device="cuda")
        if part.cores:
            threads = min(threads, len(part.cores))
            environment["OMP_NUM_THREADS"] = str(threads)
        started.append(
            start(Message(task, told, part.cores, threads, environment, sys.path, place))
        )
    return Running(task, slot, Ranks(started, store))


def _look_after(case: Running, timeout_s: float | None) -> Outcome | None:
    """Return the outcome of a case; None while it runs."""
    end = case.ranks.decided(killed=case.killed is not None)
    if end is not None:
        return _outcome(case, end)
    case.look()
    if case.killed is None:
        if timeout_s is not None and case.ran_s > timeout_s:
            case.killed = f"ran for more than {duration(timeout_s)} (--timeout)"
        elif case.silent_s > HANG_S:
            case.killed = f"wrote no heartbeat for {duration(case.silent_s)}"
        if case.killed is not None:
            case.ranks.send_signal(signal.SIGUSR1)
            time.sleep(LAST_WORDS_S)
            case.ranks.kill()
    return None


def _outcome(case: Running, end: Ended) -> Outcome:
    """Return the outcome that a process wrote; record its death if it wrote none."""
    case.ranks.close()
    if end.answer is not None and end.rank == 0:
        return Outcome(case.task.case, *end.answer)
    known = {one.value: one.name for one in signal.Signals}  # without the real-time ones
    name = known.get(-end.code, f"signal {-end.code}") if end.code < 0 else None
    if name in STOPS and case.killed is None:
        return Outcome(case.task.case, "interrupted", f"by {name}")
    failure = Failure(
        signal=name,
        exit_code=end.code if end.code >= 0 else None,
        peak_memory_mib=case.peak_memory_mib,
        log_tail=RankFolder(case.task.folder, rank=end.rank).log_tail(),
    )
    return record_death(case.task, case.started, _cause(case, end, failure), failure)


def _cause(case: Running, end: Ended, failure: Failure) -> str:
    """Describe why a process ended."""
    size, log = case.slot.size, RankFolder(case.task.folder, rank=end.rank).log.name
    if case.killed is not None:
        return f"{case.killed}; see {log}"
    if end.answer is not None:
        return f"{rank_name(end.rank, size)}: {end.answer[1]}"
    process = "its process" if size == 1 else rank_name(end.rank, size)
    if failure.signal is None:
        return f"{process} ended with code {failure.exit_code}; see {log}"
    cause = f", {CAUSES[failure.signal]}" if failure.signal in CAUSES else ""
    assert failure.peak_memory_mib is not None
    peak = f"peak memory {failure.peak_memory_mib / 1024:.1f} GiB"
    return f"{process} was ended by {failure.signal}{cause} ({peak}); see {log}"
