"""A case as its processes other than the first run it: they write nothing but a log."""

import logging
import traceback

from bench.machine.files import CannotWrite
from bench.machine.world import Lost
from bench.records.heartbeat import Interrupted
from bench.records.rank_folder import RankFolder
from bench.runner.attempt import take_part
from bench.runner.run_case import logging_to, reason_of
from bench.runner.task import Options, Outcome, Task

log = logging.getLogger("bench.case")


def follow_case(task: Task, options: Options) -> Outcome:
    """Take part in the training and scoring of a case once the first process has begun it.

    Raises:
        Lost: if the first process has ended; it may have found that there is nothing to do.
    """
    world = options.world
    folder = RankFolder(task.folder, rank=world.rank)
    try:
        world.told(True)
        with logging_to(folder.log):
            take_part(task, options, folder)
    except (Interrupted, CannotWrite) as stop:
        return Outcome(task.case, "interrupted", str(stop))
    except Lost:
        raise
    except (Exception, SystemExit) as error:  # the engine records it
        log.error("failed\n%s", traceback.format_exc())
        return Outcome(task.case, "failed", reason_of(error, folder, task.case.recipe.on_oom))
    return Outcome(task.case, "ok")
