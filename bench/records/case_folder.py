"""The folder of a case: its layout, its lease, its heartbeat."""

import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.files import CannotWrite, read_json, write_json
from bench.machine.lease import Owner, Taken, Watch, await_signs, is_free, latest
from bench.machine.lease import hold as hold_lease
from bench.suite.suite import Suite

MOST_OF_A_NAME = 80
LOG_TAIL_LINES, LOG_TAIL_BYTES = 40, 1 << 16


class Held(Exception):
    """Another process is running this case."""

    def __init__(self, owner: Owner | None, why: str = "") -> None:
        where = "elsewhere" if owner is None else f"on {owner.host} (process {owner.pid})"
        super().__init__(f"running {where}{why and '; '}{why}")


@dataclass(frozen=True)
class CaseFolder:
    """The files of a case.

    owner: the lease with which this process writes here; None if it only reads.
    """

    path: Path
    owner: Owner | None = None

    @property
    def record(self) -> Path:
        """The record; written last."""
        return self.path / "record.json"

    def profile(self, how: str = "") -> Path:
        """What the network costs, under the conditions `how`; a case can be done without it."""
        return self.path / f"profile{how and '-'}{how}.json"

    @property
    def case(self) -> Path:
        """The resolved case, as it was asked for."""
        return self.path / "case.json"

    @property
    def alive(self) -> Path:
        """The heartbeat: pid, host, epoch, time."""
        return self.path / "alive.json"

    @property
    def lease(self) -> Path:
        """The right to write here, had by the process that runs the case."""
        return self.path / "lease"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.path / "history.csv"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that a killed run continues from."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last one, in case the last cannot be read."""
        return self.path / "previous.pt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether a killed run can continue."""
        return self.checkpoint.exists() or self.previous.exists()

    @property
    def unfinished(self) -> str:
        """Say what a case without a record lacks, and what to do."""
        holder = self.holder()
        if holder is not None and holder.pid != os.getpid():  # else this process writes here
            return f"it is {Held(holder)}"
        if self.has_checkpoint:
            return "its training was interrupted; bench run continues it"
        return "it has not been trained; bench run trains it"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "weights.safetensors"

    @property
    def log(self) -> Path:
        """The log, with tracebacks."""
        return self.path / "log.txt"

    @property
    def pictures(self) -> Path:
        """A few predictions next to their truth."""
        return self.path / "pictures"

    def evaluation(self, name: str) -> Path:
        """The scores of one evaluation; its counts are in a .npz file next to it."""
        return self.path / "eval" / f"{name}.json"

    @contextmanager
    def hold(self, watch: Watch | None = None) -> Iterator["CaseFolder"]:
        """Keep other processes away from this case; this ends with the process, or its silence.

        Yields the folder to write with.

        Args:
            watch: what was seen of its lease: a dead host's can be taken only after watching it.

        Raises:
            Held: if another process has the lease; names that process.
            UserError: if the folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                mine = stack.enter_context(hold_lease(self.lease, watch))
            except Taken as taken:
                raise Held(taken.owner) from None
            except OSError as error:
                raise UserError(f"Cannot write to {self.path}: {error.strerror}.") from error
            # Left by a process that was killed while writing.
            for left in self.path.rglob(".*.tmp"):
                left.unlink(missing_ok=True)
            self.beat()
            try:
                yield replace(self, owner=mine)
            finally:
                with suppress(OSError):
                    if self.holder() == mine:
                        self.alive.unlink(missing_ok=True)

    def watched(self) -> Watch:
        """Watch its lease until the holder gives a sign of life, or was silent for too long."""
        watch = Watch(self.lease)
        await_signs([watch])
        return watch

    def holder(self) -> Owner | None:
        """Return who runs this case, as far as one look can tell; None if nobody does."""
        seen = None
        with suppress(OSError):
            seen = latest(self.lease)
        return None if seen is None or is_free(seen) else seen.owner

    def require(self) -> None:
        """Make sure, before something is written, that this process still has its lease.

        Raises:
            Held: if another process took it, because this one was silent.
            CannotWrite: if there is no lease, because the folder was moved or removed.
        """
        assert self.owner is not None
        try:
            seen = latest(self.lease)
        except OSError:  # the server does not answer for a while, or what is written next says so
            return
        if seen is None:
            raise CannotWrite(
                f"{self.path} disappeared while its case ran. Its progress is lost; bench run "
                "starts the case again."
            )
        if seen.owner != self.owner:
            raise Held(seen.owner, "another process took it over, because this one was silent")

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ()
        return tuple(lines[-LOG_TAIL_LINES:])

    def beat(self, **progress: Any) -> None:
        """Write a heartbeat."""
        sender = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
        write_json(self.alive, sender | progress, sync=False)


def drop_checkpoints(folder: CaseFolder, keep_last: bool) -> None:
    """Remove what a finished case no longer needs."""
    folder.previous.unlink(missing_ok=True)
    if not keep_last:
        folder.checkpoint.unlink(missing_ok=True)


def clear(folder: CaseFolder) -> None:
    """Remove a case's record, checkpoints, weights, history, evaluations and pictures.

    Call it only while holding the lock.
    """
    for file in (
        folder.record,
        folder.checkpoint,
        folder.previous,
        folder.weights,
        folder.history,
    ):
        file.unlink(missing_ok=True)
    for part in (folder.path / "eval", folder.pictures):
        shutil.rmtree(part, ignore_errors=True)


def results_folder(out: Path, suite: Suite, settings: Iterable[str]) -> Path:
    """Return the folder of a suite's cases; a suite changed by --set or --limit has its own.

    Its name shows the settings. If a folder of that name belongs to other settings, such as
    a/x.pth and a-x.pth, a digest is added.
    """
    settings = sorted(settings)
    changes = ",".join(re.sub(r"[^A-Za-z0-9._+,-]+", "-", setting) for setting in settings)
    if len(changes) > MOST_OF_A_NAME:
        digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
        changes = f"{changes[:MOST_OF_A_NAME]}-{digest}"
    if not changes:
        return out / suite.name
    plain = out / f"{suite.name}@{changes}"
    exact = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]
    own = plain.with_name(f"{plain.name}-{exact}")
    theirs = (read_json(plain / "suite.json") or {}).get("settings", settings)
    return own if own.is_dir() or sorted(theirs) != settings else plain
