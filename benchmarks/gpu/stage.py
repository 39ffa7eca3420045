"""Run one stage in a process of its own, which the command may end at any time.

    python -m benchmarks.gpu.stage NAME SETTINGS FILE

SETTINGS is JSON; each row that the stage finds is added to FILE as a line of JSON.
"""

import json
import sys
from pathlib import Path

from benchmarks.gpu.rows import Skipped
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stages import STAGES

SKIPPED = 3  # exit code


def main(name: str, given: str, rows: str) -> int:
    """Run a stage; return its exit code."""
    with Path(rows).open("a", encoding="utf-8") as file:
        try:
            for row in STAGES[name].rows(Settings.of(json.loads(given))):
                print(json.dumps(row, allow_nan=False), file=file, flush=True)
        except Skipped as reason:
            print(reason, flush=True)
            return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
