"""What a job of Slurm runs: `python -m bench.runner.engines.slurm_task FOLDER INDEX`.

The local engine runs the case, so its log, its record and the detection of hangs are as at home.
Before its time limit, Slurm sends SIGUSR1: the case saves, and its job asks for another turn.
After SIGTERM the case saves, too, but the job asks for nothing: if it was preempted, Slurm itself
starts it again, and if it was cancelled, it is to end.
"""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import Exit, UserError
from bench.runner.stopping import Stop, stopping

if TYPE_CHECKING:
    from bench.runner.engines.submission import End, Submission, Work
    from bench.runner.task import Outcome

HELD_S = 1.0  # between looks at a case that is held
TIME_IS_UP = ("SIGUSR1", "SIGUSR2")


def main() -> int:
    """Run the task of an array that the arguments name."""
    with stopping(lambda text: print(text, flush=True)) as stop:
        from bench.runner.engines.case_process import begin_imports
        from bench.runner.engines.submission import read_submission

        begin_imports()
        submission, index = read_submission(Path(sys.argv[1])), int(sys.argv[2])
        if submission is None:
            print(f"{sys.argv[1]} was removed: its cases were not submitted.", file=sys.stderr)
            return Exit.USAGE
        return _carry_out(submission, index, stop)


def _carry_out(submission: "Submission", index: int, stop: Stop) -> int:
    from bench.runner.engines.slurm_commands import requeue

    work, before = submission.work(index), submission.end(index)
    started = submission.note_start(index)
    outcome = _run(work, stop)
    end = _end(outcome, stop)
    if end == before and stop.signal in TIME_IS_UP:
        outcome = _stuck(work, started, outcome)
        end = _end(outcome, stop)
    submission.write_end(index, end)
    print(f"{outcome.case.name}: {outcome.status}, {outcome.reason}", flush=True)
    if end.is_final:
        return Exit.OK
    if stop.signal in TIME_IS_UP and requeue(_own_job()):
        return Exit.OK
    return Exit.TERMINATED


def _end(outcome: "Outcome", stop: Stop) -> "End":
    from bench.runner.engines.submission import End

    is_final = outcome.status != "interrupted"
    return End(
        outcome.status, outcome.reason, outcome.seconds, outcome.notes, is_final, stop.signal
    )


def _run(work: "Work", stop: Stop) -> "Outcome":
    """Run a case; in a job that was started again, wait for what is left of its last start.

    If a node is lost to Slurm, the processes of its jobs may go on there, or leave a lease behind.
    """
    from bench.machine.lease import Watch
    from bench.machine.source_hash import source_hash
    from bench.records.case_folder import CaseFolder
    from bench.runner.elsewhere import freed
    from bench.runner.engines.on_node import run_until
    from bench.runner.task import Outcome

    case = work.task.case
    if source_hash(case.model.arch) != case.source:
        reason = "the code of its network was changed after it was submitted; bench run goes on"
        return Outcome(case, "interrupted", reason)
    watch = Watch(CaseFolder(work.task.folder).lease)
    while True:
        try:
            outcome = run_until(stop, work.task, work.options, work.timeout_s, work.gpus_per_case)
        except UserError as error:  # such as too few GPUs
            return Outcome(case, "stopped", str(error))
        is_again = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        if outcome.status != "held" or not _parent_has_ended(work):
            return outcome
        while not freed(watch) and not stop.is_due():
            if watch.lives and not is_again:
                return outcome
            time.sleep(HELD_S)


def _parent_has_ended(work: "Work") -> bool:
    """Whether a case that is held can only be held by another process."""
    from bench.records.case_folder import CaseFolder

    parent = work.task.case.parent
    return parent is None or CaseFolder(work.task.folder.parent / parent.folder).record.exists()


def _stuck(work: "Work", started: str, outcome: "Outcome") -> "Outcome":
    """Record that a case gets no further, however often it has another turn."""
    from bench.records.case_folder import CaseFolder
    from bench.records.record import Failure
    from bench.runner.run_case import record_death

    reason = (
        f"its time ended twice at the same place ({outcome.reason}); give it more time in the "
        "cluster file"
    )
    tail = CaseFolder(work.task.folder).log_tail()
    return record_death(work.task, started, reason, Failure(log_tail=tail))


def _own_job() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


if __name__ == "__main__":
    sys.exit(main())
