"""The command line, in this process or, as users have it, in one of its own."""

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest import mock

from conftest import ROOT


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def bench(*args: object, code: int = 0, cwd: Path = ROOT, **env: str) -> Done:
    """Run a command in this process."""
    from bench.cli.app import main

    out, err, left = StringIO(), StringIO(), 0
    with chdir(cwd), mock.patch.dict(os.environ, env), redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as end:
            left = int(end.code or 0)
    return _checked(left, out.getvalue(), err.getvalue(), code)


def bench_process(*args: object, code: int = 0, **env: str) -> Done:
    """Run a command as a user types it."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )
    return _checked(done.returncode, done.stdout, done.stderr, code)


def _checked(left: int, stdout: str, stderr: str, code: int) -> Done:
    assert left == code, stdout + stderr
    assert "Traceback" not in stdout + stderr
    return Done(stdout, stderr)
