"""A submission: one job array of Slurm, in a folder with its script, its tasks and their ends."""

import getpass
import pickle
import secrets
import shlex
import shutil
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.files import read_json, write_atomically, write_json, write_text
from bench.records.case_folder import CaseFolder, Held
from bench.records.record import now
from bench.runner.engines.cluster import NOTICE_S, Cluster, Resources
from bench.runner.task import Options, Outcome, Task
from bench.text import duration

ROOM = "slurm"  # in the folder of a suite's cases
PATIENCE_S = 120.0  # for another driver that is submitting


@dataclass(frozen=True)
class Work:
    """What a node is given."""

    task: Task
    options: Options
    timeout_s: float | None
    gpus_per_case: int = 1


@dataclass(frozen=True)
class End:
    """How a task of an array ended.

    is_final: False if Slurm may start the task again.
    signal: the name of the signal that stopped it.
    """

    status: str
    reason: str | None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    is_final: bool = True
    signal: str | None = None


@dataclass(frozen=True)
class Submission:
    """A job array.

    name: in Slurm; no other array has it.
    user: who submitted it; None if unknown.
    cases: the names of the cases' folders, by their index in the array.
    job: the number of the array; None until Slurm has given one.
    """

    path: Path
    name: str
    cases: tuple[str, ...]
    job: str | None = None
    user: str | None = None

    @property
    def script(self) -> Path:
        """What Slurm runs for each task."""
        return self.path / "job.sh"

    def job_of(self, index: int) -> str:
        """Return the number of a task's job."""
        return f"{self.job}_{index}"

    def output(self, index: int) -> Path:
        """What the job of a task printed, Slurm's own messages included."""
        return self.path / f"{self.job_of(index)}.txt"

    def with_job(self, job: str) -> "Submission":
        """Note the number that Slurm gave it."""
        given = replace(self, job=job)
        given.write()
        return given

    def write(self) -> None:
        """Write down what was submitted, by whom and when."""
        facts = {"name": self.name, "job": self.job, "cases": self.cases, "submitted": now()}
        by = {"user": self.user or getpass.getuser(), "host": socket.gethostname()}
        write_json(self.path / "submission.json", facts | by)

    def work(self, index: int) -> Work:
        """Read what the node of a task is to do."""
        work: Work = pickle.loads((self.path / "tasks" / f"{index}.pickle").read_bytes())
        return work

    def note_start(self, index: int) -> str:
        """Note when the work on a task began, and return it."""
        start = now()
        write_json(self.path / "starts" / f"{index}.json", start)
        (self.path / "ends" / f"{index}.json").unlink(missing_ok=True)
        return start

    def start(self, index: int) -> str | None:
        """Return when the work on a task last began; None if it never did."""
        start: str | None = read_json(self.path / "starts" / f"{index}.json")
        return start

    def write_end(self, index: int, end: End) -> None:
        """Note how a task ended."""
        write_json(self.path / "ends" / f"{index}.json", end.__dict__)

    def ended(self) -> set[int]:
        """List the tasks that said how they ended, some of which may be started again."""
        with suppress(FileNotFoundError):
            # Listing a shared folder also shows files that appeared a moment ago.
            names = [file.name for file in (self.path / "ends").iterdir()]
            return {int(n.removesuffix(".json")) for n in names if not n.startswith(".")}
        return set()

    def end(self, index: int) -> End | None:
        """Read how a task ended; None if it runs or did not say."""
        told = read_json(self.path / "ends" / f"{index}.json")
        return None if told is None else End(**told | {"notes": tuple(told["notes"])})

    def remove(self) -> None:
        """Remove its folder; a job of it that Slurm may have then fails before it begins."""
        shutil.rmtree(self.path, ignore_errors=True)


def new_submission(folder: Path, works: Sequence[Work]) -> Submission:
    """Think of a folder and a name for an array; nothing is written yet."""
    token = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    cases = tuple(work.task.folder.name for work in works)
    return Submission(folder.absolute() / ROOM / token, f"{folder.name}.{token[-6:]}", cases)


def write_submission(one: Submission, works: Sequence[Work], script: str) -> None:
    """Write all that the nodes read."""
    for index, work in enumerate(works):
        # The nodes have their own should_stop; ours cannot be pickled.
        told = pickle.dumps(replace(work, options=replace(work.options, should_stop=bool)))
        file = one.path / "tasks" / f"{index}.pickle"
        write_atomically(file, lambda beside, told=told: _write(beside, told), sync=False)  # type: ignore[misc]
    write_text(one.script, script)
    one.write()


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def read_submission(path: Path) -> Submission | None:
    """Read a submission; None if the folder holds none."""
    told: dict[str, Any] | None = read_json(path / "submission.json")
    if told is None:
        return None
    return Submission(path, told["name"], tuple(told["cases"]), told["job"], told.get("user"))


def read_submissions(folder: Path) -> list[Submission]:
    """Read the submissions of a suite."""
    room = folder.absolute() / ROOM
    places = sorted(room.iterdir()) if room.is_dir() else []
    return [one for place in places if (one := read_submission(place)) is not None]


def script_text(one: Submission, resources: Resources, cluster: Cluster) -> str:
    """Write the script of an array, with the options of sbatch in it."""
    throttle = f"%{cluster.max_running}" if cluster.max_running else ""
    options = [
        f'--job-name="{one.name}"',
        f"--array=0-{len(one.cases) - 1}{throttle}",
        f'--output="{one.path}/%A_%a.txt"',
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{NOTICE_S}",
        "--nodes=1",
        "--ntasks=1",
        *resources.options,
    ]
    has_cores = resources.cpus is not None
    python = cluster.python or shlex.quote(sys.executable)
    path = ":".join(map(shlex.quote, _own_path()))
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in options),
            "set -e",
            f"cd {shlex.quote(str(Path.cwd()))}",
            *cluster.setup,
            # Where Slurm binds no cores, a case would use all of its node.
            *(['export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"'] * has_cores),
            *([f'export PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}"'] if path else []),
            "# exec: Slurm signals this process alone before the time ends.",
            f"exec {python} -m bench.runner.engines.slurm_task "
            f'{shlex.quote(str(one.path))} "$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )


def _own_path() -> list[str]:
    """Return where this process finds modules apart from its Python's own folders."""
    own = [
        Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    places = [Path(place).absolute() for place in sys.path if place and not place.endswith(".zip")]
    return [str(p) for p in places if not any(p.is_relative_to(one) for one in own)]


def outcome_of(task: Task, end: End) -> Outcome:
    """Return how a task ended as an outcome."""
    return Outcome(task.case, end.status, end.reason, end.seconds, end.notes)  # type: ignore[arg-type]


@contextmanager
def submitting(folder: Path) -> Iterator[None]:
    """Keep other drivers from submitting cases of a suite; wait for one that does.

    Raises:
        UserError: if it takes too long.
    """
    room, deadline = CaseFolder(folder / ROOM / "submitting"), time.monotonic() + PATIENCE_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(room.hold(room.watched()))
                break
            except Held as holder:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{folder}: cases have been submitted by {holder} for "
                        f"{duration(PATIENCE_S)}; try again later."
                    ) from None
                time.sleep(0.2)
        yield
