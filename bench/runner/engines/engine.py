"""Engines: ways of running tasks, one function each.

`run(tasks, options, announce)` yields an outcome for each task, in the order in which they end.
A task comes after the task whose weights it starts from. Once `options.should_stop` returns True,
or an outcome is `interrupted` or `stopped`, nothing more is started.
"""

from collections.abc import Callable, Generator, Iterable, Sequence

from bench.runner.task import Options, Outcome, Task

Engine = Callable[[Iterable[Task], Options, Callable[[Task], None]], Generator[Outcome, None, None]]


def next_ready(waiting: Sequence[Task], running: Iterable[Task]) -> Task | None:
    """Return the first task whose parent has ended."""
    coming = {task.case.name for task in (*waiting, *running)}
    ready = (t for t in waiting if t.case.parent is None or t.case.parent.name not in coming)
    return next(ready, None)
