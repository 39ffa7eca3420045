"""A case on the node where a cluster placed it: the local engine runs it, so all is as at home."""

from dataclasses import replace

from bench.machine.device import pick_device
from bench.runner.engines import processes
from bench.runner.stopping import Stop, stopping
from bench.runner.task import Options, Outcome, Task


def run_here(
    task: Task, options: Options, timeout_s: float | None = None, gpus_per_case: int = 1
) -> Outcome:
    """Run one case in a process of its own on this machine.

    It saves and stops if `options.should_stop` says so, or on a signal that clusters send.

    Args:
        timeout_s: a case that runs for longer is killed and has failed.
        gpus_per_case: processes that train the case together, each on a GPU of this machine.

    Raises:
        UserError: if this machine has too few GPUs or cores for them.
    """
    with stopping() as stop:
        return run_until(stop, task, options, timeout_s, gpus_per_case)


def run_until(
    stop: Stop,
    task: Task,
    options: Options,
    timeout_s: float | None = None,
    gpus_per_case: int = 1,
) -> Outcome:
    """Run one case as `run_here` does, for a caller that wants to know why it was stopped."""
    slots = [processes.Slot()]
    if gpus_per_case > 1:
        slots = processes.divide(1, pick_device(options.device), gpus_per_case)
    asked = options.should_stop
    here = replace(options, should_stop=lambda: stop.is_due() or asked())
    [outcome] = processes.run([task], here, lambda task: None, slots, timeout_s)
    return outcome
