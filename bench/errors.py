"""Errors that users can fix, and the exit codes of commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class UserError(Exception):
    """A mistake that the user can fix: what was given, what is allowed, what to do next.

    It is shown without a traceback.
    """


@dataclass(frozen=True)
class Fault:
    """One mistake in a suite, at a key path such as ("models", "unet", "arch")."""

    path: tuple[str | int, ...]
    message: str


class Faults(ValueError):
    """Several mistakes found by one check, each at a path below the checked value."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = tuple(faults)


class Exit(IntEnum):
    """The exit codes of commands.

    NEGATIVE: a case failed, a check found something, or a comparison found something worse.
    CRASHED: an unexpected error, a fault of this program.
    """

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    NOTHING_MATCHED = 3
    INTERRUPTED = 4
    RUNNING_ELSEWHERE = 5
    TERMINATED = 6
    NOTHING_COMPARED = 7
    CRASHED = 70
