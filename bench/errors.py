"""Errors that users can fix, and the exit codes of the commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class UserError(Exception):
    """A mistake that the user can fix, shown without a traceback.

    The message says what was given, what is allowed and what to do next.
    """


@dataclass(frozen=True)
class Fault:
    """One mistake in a suite, at a key path such as ("models", "unet", "arch")."""

    path: tuple[str | int, ...]
    message: str


class Faults(ValueError):
    """Several mistakes found by one check; each path is relative to the checked value."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = tuple(faults)


class Exit(IntEnum):
    """The exit codes of the commands.

    NEGATIVE: a case failed, a check found something, a comparison found a worse result, or results
        could not be written.
    CRASHED: an unexpected error, which is a bug in this program.
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
