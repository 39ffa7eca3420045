"""One case after the other in this process."""

from collections.abc import Iterable, Iterator

from bench.runner import run_case
from bench.task import Options, Outcome, Task


def run(tasks: Iterable[Task], options: Options) -> Iterator[Outcome]:
    """Run tasks in order, each to its outcome."""
    for task in tasks:
        yield run_case(task, options)
