"""Leases: the right to write somewhere, which a dead holder loses by its silence.

The lease of NAME is the file NAME.N with the highest number. Whoever creates NAME.(N + 1) takes the
lease from the holder of NAME.N: that a file is created by one process alone is what every file
system guarantees, NFS too. flock is not: some file systems refuse it, and some let two hosts have
it at once. A holder touches its file regularly. Others watch the file for changes, by their own
clocks; the clocks of hosts are never compared. If a holder's process has ended on this machine,
that is seen at once.
"""

import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from bench.errors import UserError
from bench.machine.process import has_ended, started

VARIABLE = "BENCH_LEASE_S"
LEASE_S = 120.0  # NFS may show a change a minute late
BEATS = 6  # of a holder in that time
AGAIN_S = 0.05
RELEASED = "released"


@dataclass(frozen=True)
class Owner:
    """Who has a lease.

    machine: differs after a restart, and between containers; start: of the process, in ticks.
    """

    host: str
    pid: int
    machine: str
    start: int | None
    token: str

    def __str__(self) -> str:
        """Name the process and its host."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether this machine can see the process."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def runs_here(self) -> bool:
        """Whether the process is known to run on this machine."""
        return self.is_here and self.start is not None and started(self.pid) == self.start

    @property
    def has_ended(self) -> bool:
        """Whether this machine ran the process and no longer does."""
        return self.is_here and has_ended(self.pid, self.start)


@dataclass(frozen=True)
class Seen:
    """A file of a lease; owner: None if it is unreadable, for example still being written."""

    number: int
    owner: Owner | None
    is_released: bool
    touched: int


class Taken(Exception):
    """Another process has the lease."""

    def __init__(self, owner: Owner | None) -> None:
        super().__init__("another process" if owner is None else str(owner))
        self.owner = owner


def lease_s() -> float:
    """Return the seconds of silence after which a lease is lost, the same on all hosts.

    Raises:
        UserError: if the environment variable is not a positive number.
    """
    given = os.environ.get(VARIABLE, str(LEASE_S))
    with suppress(ValueError):
        if 0 < float(given) < math.inf:
            return float(given)
    raise UserError(f"{VARIABLE} must be a number of seconds, not {given!r}.")


class Watch:
    """Watches who has a lease, and for how long the file has not changed by this host's clock."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.seen: Seen | None = None
        with suppress(OSError):
            self.seen = latest(place)
        self.since = time.monotonic()
        self.is_alive = False  # whether it changed since it was first looked at

    def look(self) -> Seen | None:
        """Look again; return the file of the lease, None if nobody ever had it."""
        try:
            seen = latest(self.place)
        except OSError:  # no answer is no sign of life
            return self.seen
        if seen != self.seen:
            self.seen, self.since, self.is_alive = seen, time.monotonic(), True
        return seen

    @property
    def lives(self) -> bool:
        """Whether the holder gave a sign of life, or runs on this machine."""
        owner = self.seen.owner if self.seen else None
        return self.is_alive or (owner is not None and owner.runs_here)

    def is_free(self) -> bool:
        """Look again; return whether the lease can be taken."""
        seen = self.look()
        return is_free(seen) or time.monotonic() - self.since > lease_s()


def latest(place: Path) -> Seen | None:
    """Read the file of a lease; None if there is none.

    Raises:
        OSError: if the folder or the file cannot be read.
    """
    while True:
        numbers = _numbers(place)
        if not numbers:
            return None
        with suppress(FileNotFoundError):  # the next holder has just removed it
            return _read(place, max(numbers))
        time.sleep(AGAIN_S)  # NFS may list it for a while


def is_free(seen: Seen | None) -> bool:
    """Return whether nobody has a lease, as far as one look can tell."""
    return seen is None or seen.is_released or (seen.owner is not None and seen.owner.has_ended)


def await_signs(watches: Iterable[Watch]) -> None:
    """Wait until each lease is free, or its holder gives a sign of life."""
    left = list(watches)
    while left := [watch for watch in left if not watch.is_free() and not watch.lives]:
        time.sleep(min(1.0, lease_s() / BEATS))


@contextmanager
def hold(place: Path, watch: Watch | None = None) -> Iterator[Owner]:
    """Have a lease while the body runs; yields what is written in it.

    Args:
        watch: what was seen of the lease before; a silent holder can be told only by watching.

    Raises:
        Taken: if another process has it.
        OSError: if its file cannot be written.
    """
    every_s = lease_s() / BEATS
    number, owner = _take(place, watch or Watch(place))
    ended, file = threading.Event(), _file(place, number)
    beat = threading.Thread(target=_beat, args=(file, every_s, ended), daemon=True)
    beat.start()
    try:
        yield owner
    finally:
        ended.set()
        beat.join()
        with suppress(OSError):
            seen = _read(place, number)
            if seen.owner == owner:
                _append(_file(place, number), f"{RELEASED}\n")


def _take(place: Path, watch: Watch) -> tuple[int, Owner]:
    """Create the next file of a lease.

    Raises:
        Taken: if another process has the lease, or was faster.
    """
    if not watch.is_free():
        raise Taken(watch.seen.owner if watch.seen else None)
    number = (watch.seen.number if watch.seen else 0) + 1
    pid, token = os.getpid(), secrets.token_hex(8)
    owner = Owner(socket.gethostname(), pid, _machine(), started(pid), token)
    file = _file(place, number)
    try:
        created = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise Taken(None) from None
    try:
        with os.fdopen(created, "w") as stream:
            stream.write(f"{json.dumps(asdict(owner))}\n")
    except OSError:  # the disk is full: an empty file would keep everybody out
        file.unlink(missing_ok=True)
        raise
    numbers = _numbers(place)
    if max(numbers, default=0) > number:  # what was seen of the folder was old
        file.unlink(missing_ok=True)
        raise Taken(None)
    for old in numbers - {number}:
        _file(place, old).unlink(missing_ok=True)
    return number, owner


def _beat(file: Path, every_s: float, ended: threading.Event) -> None:
    while not ended.wait(every_s):
        with suppress(OSError):  # lost, or the file system does not answer for a while
            os.utime(file)


def _file(place: Path, number: int) -> Path:
    return place.with_name(f"{place.name}.{number}")


def _numbers(place: Path) -> set[int]:
    """List the numbers of the files of a lease."""
    start = f"{place.name}."
    try:
        names = os.listdir(place.parent)
    except FileNotFoundError:
        return set()
    numbers = (name.removeprefix(start) for name in names if name.startswith(start))
    return {int(number) for number in numbers if number.isdecimal()}


def _read(place: Path, number: int) -> Seen:
    with _file(place, number).open("rb") as stream:  # opening asks the server, not a cache
        touched = os.fstat(stream.fileno()).st_mtime_ns
        lines = stream.read().decode(errors="replace").splitlines()
    owner = None
    with suppress(ValueError, TypeError, IndexError):
        owner = Owner(**json.loads(lines[0]))
    return Seen(number, owner, RELEASED in lines[1:], touched)


def _append(file: Path, text: str) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_APPEND)
    with os.fdopen(opened, "w") as stream:
        stream.write(text)


@cache
def _machine() -> str:
    """Tell this machine since its start, and this container, from others of the same name."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)
