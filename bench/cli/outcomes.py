"""What `run` and `evaluate` print about the cases of one suite."""

from bench.cli.console import Console
from bench.errors import Exit
from bench.loading.loading import read_loading
from bench.records.record import read_evaluations, read_record
from bench.runner.result import case_result
from bench.runner.task import Outcome, Task
from bench.suite.suite import Suite
from bench.text import duration, percent


class Outcomes:
    """Prints a line for each case that ends, and remembers what became of it."""

    def __init__(self, suite: Suite, total: int, console: Console) -> None:
        self.suite, self.total, self.console = suite, total, console
        self.ended: list[Outcome] = []
        self.loading = ""  # as it was last shown

    def add(self, outcome: Outcome, task: Task) -> None:
        """Print what became of a case."""
        self.ended.append(outcome)
        head = f"[{len(self.ended)}/{self.total}] {outcome.case.name}: "
        if outcome.status != "ok":
            self.console.say(f"{head}{outcome.status}: {outcome.reason}")
        else:
            scored = [e for e in read_evaluations(task.folder) if e.name in task.evaluations]
            figures = [f"{e.name} mIoU {percent(e.scores['miou'])}" for e in scored]
            self.console.say(f"{head}ok, {', '.join(figures)}, {duration(outcome.seconds)}")
            self._say_loading(task)
        for note in outcome.notes:
            self.console.say(f"  {note}")
        self.add_json(outcome, task)

    def add_json(self, outcome: Outcome, task: Task, skipped: bool = False) -> None:
        """Print a line of JSON, if that is asked for; skipped: the case was done before."""
        if self.console.json_lines:
            self.console.json(case_result(self.suite.name, outcome, task, skipped).as_json())

    def _say_loading(self, task: Task) -> None:
        """Say how images were read, if that is not as before."""
        record = read_record(task.folder)
        if record is None or not record.loading:
            return
        kept = record.loading["cache"]
        decoded = "decoded each time" if kept == "none" else f"decoded once ({kept})"
        shown = f"{read_loading(record.loading).description}, {decoded}"
        if shown != self.loading:
            self.console.say(f"  images: {shown}")
        self.loading = shown


def exit_code(outcomes: list[Outcome]) -> Exit:
    """Return the exit code of a run by what became of its cases."""
    statuses = {outcome.status for outcome in outcomes}
    if "interrupted" in statuses:
        return Exit.INTERRUPTED
    if statuses & {"failed", "blocked", "stopped"}:
        return Exit.NEGATIVE
    return Exit.RUNNING_ELSEWHERE if "held" in statuses else Exit.OK


def nothing_matched(console: Console, pattern: str | None) -> Exit:
    """Say that a filter matched no case."""
    is_part = pattern is not None and not any(sign in pattern for sign in "*?[")
    hint = f" A filter covers the whole name; try '*{pattern}*'." if is_part else ""
    console.warn(f"No case matches {pattern!r}.{hint}")
    return Exit.NOTHING_MATCHED
