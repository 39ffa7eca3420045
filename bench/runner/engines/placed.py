"""What Slurm has of a suite's cases, and what became of those whose jobs are over."""

import getpass
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.records.case_folder import CaseFolder
from bench.records.record import Failure
from bench.runner.engines import slurm_commands
from bench.runner.engines.slurm_commands import Job
from bench.runner.engines.submission import End, Submission, outcome_of, read_submissions
from bench.runner.plan import look_up
from bench.runner.task import Outcome, Task

OUTPUT_LINES = 20
LATE_S = 10  # that files of a node may come late
OUT_OF_MEMORY = re.compile(
    r"slurmstepd.*?((?:exceeded (?:job |step )?memory limit|oom.kill).*)", re.IGNORECASE
)


@dataclass
class Placed:
    """A case that Slurm has."""

    task: Task
    submission: Submission
    index: int
    job: Job
    is_announced: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its job has ended; jobs of other users may be hidden while they live."""
        if self.job.state == "UNKNOWN" and self.submission.user not in (None, getpass.getuser()):
            return False
        return self.job.has_ended

    def last_word(self) -> End | None:
        """Return how its node said it ended, which may come late from a shared folder."""
        for _ in range(LATE_S if self.job.state == "COMPLETED" else 1):
            end = self.submission.end(self.index)
            if end is not None or look_up(self.task)[0] == "done":
                return end
            time.sleep(1.0 if self.job.state == "COMPLETED" else 0.0)
        return None

    def note(self, outcome: Outcome) -> Outcome:
        """Note how it ended, for other drivers."""
        end = End(outcome.status, outcome.reason, outcome.seconds, outcome.notes)
        self.submission.write_end(self.index, end)
        return outcome


def known(folder: Path, tasks: Sequence[Task]) -> tuple[dict[str, Placed], list[Placed]]:
    """Return the cases that Slurm has, by the case's name, and those whose jobs are over.

    Raises:
        NoAnswer: if Slurm cannot be asked.
    """
    asked = {task.folder.name: task for task in tasks}
    found: list[tuple[Submission, int]] = []
    for submission in read_submissions(folder):
        ended = submission.ended()
        found += [
            (submission, index)
            for index, name in enumerate(submission.cases)
            if name in asked and submission.job and not _is_over(submission, index, ended)
        ]
    jobs = slurm_commands.squeue({str(submission.job) for submission, _ in found})
    placed, over = dict[str, Placed](), []
    for submission, index in found:
        task = asked[submission.cases[index]]
        one = Placed(task, submission, index, job_in(jobs, submission, index))
        if one.is_over:
            over.append(one)
        else:
            placed[task.case.name] = one
    return placed, over


def _is_over(submission: Submission, index: int, ended: set[int]) -> bool:
    end = submission.end(index) if index in ended else None
    return end is not None and end.is_final


def job_in(jobs: dict[tuple[str, int], Job], submission: Submission, index: int) -> Job:
    """Return what Slurm said of a task, which it may have forgotten."""
    unknown = Job(submission.job_of(index), "UNKNOWN")
    return jobs.get((str(submission.job), index), unknown)


def outcome_if_over(one: Placed, has_end: bool) -> Outcome | None:
    """Return the outcome of a case; None while Slurm has it."""
    end = one.submission.end(one.index) if has_end else None
    if end is not None and end.is_final:
        return outcome_of(one.task, end)
    return collect(one) if one.is_over else None


def collect(one: Placed) -> Outcome:
    """Find out how a job ended that did not say so itself, and note it."""
    task, job = one.task, one.job
    if job.is_held_back:
        slurm_commands.scancel(job.id)
    end, start = one.last_word(), one.submission.start(one.index)
    if end is not None and end.is_final:
        return outcome_of(task, end)
    if look_up(task)[0] == "done":
        return one.note(Outcome(task.case, "ok"))
    if end is not None:
        return one.note(Outcome(task.case, "interrupted", f"{end.reason}; {job}"))
    said = _of_memory(one.submission.output(one.index))
    if start is not None and (said or not _is_no_fault(job)):
        return one.note(_death(one, start, said))
    ended = "ended" if start is not None else "ended before the case began"
    reason = f"{job} {ended}; bench run submits the case again"
    if start is None and job.state in ("FAILED", "TIMEOUT"):
        reason = f"{job} {ended}: see {one.submission.output(one.index)}"
    return one.note(Outcome(task.case, "interrupted", reason))


def _is_no_fault(job: Job) -> bool:
    return job.is_held_back or job.state in {"UNKNOWN", *slurm_commands.NO_FAULT}


def _death(one: Placed, start: str, said: str | None) -> Outcome:
    """Record that a job was ended from outside, or crashed."""
    from bench.runner.run_case import record_death

    code, number = slurm_commands.exit_code(one.job.id) or (None, 0)
    names = {value.value: value.name for value in signal.Signals}
    failure = Failure(
        signal=names.get(number) if number else None,
        exit_code=None if number else code,
        log_tail=CaseFolder(one.task.folder).log_tail(),
    )
    if said or one.job.state == "OUT_OF_MEMORY":
        reason = (
            f"its {one.job} used more memory than it had asked for"
            f"{f' ({said})' if said else ''}; give it more in the cluster file"
        )
    else:
        about = f", {one.job.reason}" if one.job.reason != "None" else ""
        reason = (
            f"its {one.job} ended{about}, exit code {code}:{number}; "
            f"see {one.submission.output(one.index)}"
        )
    return record_death(one.task, start, reason, failure)


def _of_memory(output: Path) -> str | None:
    """Return what Slurm wrote into a job's output about its memory."""
    with suppress(OSError):
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()[-OUTPUT_LINES:]
        found = [match[1] for line in lines if (match := OUT_OF_MEMORY.search(line))]
        return found[0] if found else None
    return None
