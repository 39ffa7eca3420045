"""A case on the node where a cluster placed it: the local engine runs it, so all is as at home."""

from dataclasses import replace

from bench.runner.engines import processes
from bench.runner.stopping import Stop, stopping
from bench.runner.task import Options, Outcome, Task


def run_here(task: Task, options: Options, timeout_s: float | None = None) -> Outcome:
    """Run one case in a process of its own on this machine.

    It saves and stops if `options.should_stop` says so, or on a signal that clusters send.

    Args:
        timeout_s: a case that runs for longer is killed and has failed.
    """
    with stopping() as stop:
        return run_until(stop, task, options, timeout_s)


def run_until(stop: Stop, task: Task, options: Options, timeout_s: float | None = None) -> Outcome:
    """Run one case as `run_here` does, for a caller that wants to know why it was stopped."""
    asked = options.should_stop
    here = replace(options, should_stop=lambda: stop.is_due() or asked())
    [outcome] = processes.run([task], here, lambda task: None, timeout_s=timeout_s)
    return outcome
