"""What is asked of Slurm: its programs sbatch, squeue and scontrol."""

import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError

PATIENCE_S = 60.0  # a controller that is busy answers late
FIELDS = "%F|%K|%T|%r|%N"
USUAL_MAX_ARRAY = 1000
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}
NO_FAULT = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "NODE_FAIL", "PREEMPTED", "REVOKED"}  # of a case


class NoAnswer(UserError):
    """Slurm could not be asked, for example because its controller is down."""


@dataclass(frozen=True)
class Job:
    """What Slurm says of one task of an array.

    state: as squeue writes it, or UNKNOWN if Slurm has forgotten the job.
    """

    id: str
    state: str
    reason: str = "None"
    node: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it will run any more, unless somebody releases it."""
        return self.state in ENDED or self.state == "UNKNOWN" or self.is_held_back

    @property
    def is_held_back(self) -> bool:
        """Whether Slurm could not start it again, and leaves it to be released by hand."""
        return "requeue" in self.reason and "held" in self.reason

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        why = f", {self.reason}" if self.state == "PENDING" and self.reason != "None" else ""
        return f"job {self.id} ({self.state}{where}{why})"


def require_slurm() -> None:
    """Check that jobs can be submitted here.

    Raises:
        UserError: if there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--engine slurm needs Slurm's program sbatch, which is not on this machine; give the "
            "command on a login node of the cluster."
        )


def sbatch(script: Path, dependencies: Collection[str]) -> str:
    """Submit a script and return the number of its job.

    Args:
        dependencies: jobs that must have ended before, however they end.

    Raises:
        UserError: with what Slurm says, if it refuses.
    """
    after = [f"--dependency=afterany:{':'.join(dependencies)}"] if dependencies else []
    done = _ask("sbatch", "--parsable", *after, str(script))
    if done.returncode:
        raise UserError(f"Slurm refuses the job: {_said(done)}")
    return done.stdout.strip().partition(";")[0]


def squeue(jobs: Collection[str]) -> dict[tuple[str, int], Job]:
    """Return what Slurm says of the tasks of arrays; those that it has forgotten are missing.

    Raises:
        NoAnswer: if it cannot be asked.
    """
    if not jobs:  # squeue would list the jobs of everybody
        return {}
    done = _ask("squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", FIELDS)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise NoAnswer(f"Slurm does not answer: {_said(done)}")
    found = {}
    for line in done.stdout.splitlines():
        array, index, state, reason, node = line.split("|", 4)
        if index.isdigit():
            found[array, int(index)] = Job(f"{array}_{index}", state, reason, node)
    return found


def find_job(name: str) -> str | None:
    """Return the number of the array with a name; None if Slurm knows none.

    Raises:
        NoAnswer: if it cannot be asked.
    """
    done = _ask("squeue", "-h", "-r", "-t", "all", "--name", name, "-o", "%F")
    if done.returncode:
        raise NoAnswer(f"Slurm does not answer: {_said(done)}")
    return next(iter(done.stdout.split()), None)


def exit_code(job: str) -> tuple[int, int] | None:
    """Return the exit code of an ended job and the signal that ended it; None if not known."""
    done = _ask("scontrol", "-o", "show", "job", job)
    match = re.search(r"\bExitCode=(\d+):(\d+)", done.stdout)
    return None if match is None else (int(match[1]), int(match[2]))


def requeue(job: str) -> bool:
    """Let a job start again after it has ended; False if Slurm refuses."""
    return _ask("scontrol", "requeue", job).returncode == 0


def scancel(job: str) -> None:
    """End a job, if Slurm still has it."""
    _ask("scancel", job)


def max_array() -> int:
    """Return the most tasks of an array, as Slurm has it by default if it cannot be asked."""
    try:
        done = _ask("scontrol", "show", "config")
    except NoAnswer:
        return USUAL_MAX_ARRAY
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.M)
    return max(1, int(match[1]) - 1) if match else USUAL_MAX_ARRAY


def _ask(*words: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"Slurm does not answer: {words[0]}: {error}.") from error


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join(done.stderr.split()) or f"exit code {done.returncode}"
