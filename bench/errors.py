"""Mistakes that the user can mend."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class UserError(Exception):
    """Say what was given, what is allowed and what to do next; shown without a traceback."""


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
    """What the exit code of a command says."""

    OK = 0
    CASE_FAILED = 1
    FINDINGS = 1  # of a check
    WORSE = 1  # of a comparison
    USAGE = 2
    NOTHING_MATCHED = 3
    INTERRUPTED = 4
    RUNNING_ELSEWHERE = 5
    TERMINATED = 6
    NOTHING_COMPARED = 7
