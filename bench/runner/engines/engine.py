"""Engines: ways of running tasks, one function each.

`run(tasks, options, announce)` yields an outcome for each task, in the order in which they end.
A task comes after the task whose weights it starts from. Once `options.should_stop` returns True,
or an outcome is `interrupted` or `stopped`, nothing more is started.
"""

from collections.abc import Callable, Generator, Iterable

from bench.runner.task import Options, Outcome, Task

Engine = Callable[[Iterable[Task], Options, Callable[[Task], None]], Generator[Outcome, None, None]]
