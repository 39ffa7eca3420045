"""The engine that runs one case after another in this process."""

from collections.abc import Callable, Generator, Iterable

from bench.runner.run_case import run_case
from bench.runner.task import Options, Outcome, Task


def run(
    tasks: Iterable[Task], options: Options, announce: Callable[[Task], None]
) -> Generator[Outcome, None, None]:
    """Run tasks in order and yield their outcomes.

    Args:
        announce: called with each task before it starts.
    """
    for task in tasks:
        announce(task)
        outcome = run_case(task, options)
        yield outcome
        if outcome.status in ("interrupted", "stopped"):
            return
