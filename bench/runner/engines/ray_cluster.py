"""A Ray cluster, as the driver uses it: connecting, sharing nodes among cases, losses."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import UserError
from bench.runner.engines.ray_node import Parcel, run_on_node
from bench.runner.task import Options, Outcome, Task
from bench.text import first_line

POLL_S = 0.5
ANSWER_S = 10.0


@dataclass(frozen=True)
class Share:
    """What one case uses of a node."""

    cpus: int
    gpus: int

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, float]], device: str, num_gpus: int) -> "Share":
        """Return some GPUs with their part of the CPUs, or else all CPUs of the smallest node.

        It is the same on all nodes, so that seeds have the same number of threads.

        Args:
            nodes: how many CPUs and GPUs each has.
            num_gpus: of a case, if the cluster has GPUs.

        Raises:
            UserError: if the cluster does not have the device.
        """
        if device in ("auto", "cuda"):
            enough = [n for n in nodes if n.get("GPU", 0) >= num_gpus]
            if enough:
                per_gpu = min(n.get("CPU", 0) // n["GPU"] for n in enough)
                return cls(int(per_gpu) * num_gpus, num_gpus)
            if device == "cuda" or any(n.get("GPU", 0) for n in nodes):
                what = "GPU" if num_gpus == 1 else f"node with {num_gpus} GPUs"
                raise UserError(f"The Ray cluster has no {what}; give --device cpu, or add a node.")
        cpus = [n["CPU"] for n in nodes if n.get("CPU", 0) >= 1]
        if not cpus:
            raise UserError("The Ray cluster has no CPU for cases; add a node.")
        return cls(int(min(cpus)), 0)

    def num_in(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Return how many cases the nodes can run at once."""
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            int(min(node.get(name, 0) // num for name, num in asked.items() if num))
            for node in nodes
        )


@dataclass
class Placed:
    """A case that was given to Ray.

    losses: of its worker, since it last finished an epoch.
    history: bytes of its history at the last loss.
    """

    task: Task
    ref: Any
    losses: int = 0
    history: int = 0
    was_lost: bool = False
    is_announced: bool = False
    is_cancelled: bool = False


class Cluster:
    """A Ray cluster that this process is connected to, and the cases that it was given."""

    def __init__(
        self,
        ray: ModuleType,
        options: Options,
        timeout_s: float | None,
        gpus_per_case: int,
        markers: Mapping[Path, Path],
    ) -> None:
        self.ray, self.timeout_s, self.markers = ray, timeout_s, markers
        self.gpus_per_case = gpus_per_case
        self.placed: list[Placed] = []
        self.share = Share.of(self.nodes, options.device, gpus_per_case)
        device = "cuda" if self.share.gpus else options.device.replace("auto", "cpu")
        # should_stop is of this process and cannot be pickled.
        self.options = replace(options, device=device, should_stop=bool)
        # Ray's own folders come with it on the node.
        own = Path(str(ray.__file__)).parent
        folders = [Path(entry).absolute() for entry in sys.path]
        self.path = [str(folder) for folder in folders if own not in folder.parents]
        settings = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
        self.run_on_node = ray.remote(
            max_retries=0,  # a loss is ours to count
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": settings | {"PYTHONPATH": os.pathsep.join(self.path)}},
        )(run_on_node)

    @property
    def nodes(self) -> list[Mapping[str, float]]:
        """The resources of the nodes that are alive."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    @property
    def has_room(self) -> bool:
        """Whether to give it one more case; a few wait there, so that it can grow."""
        num = self.share.num_in(self.nodes)
        return len(self.placed) <= num + num // 4

    def place(self, case: Placed) -> None:
        """Give it a case."""
        task = replace(case.task, folder=case.task.folder.absolute())
        marker = self.markers[task.folder.parent]
        where = os.getcwd(), self.path
        how = self.options, self.timeout_s, self.gpus_per_case
        parcel = Parcel(task, *how, marker, *where, case.was_lost)
        case.ref = self.run_on_node.remote(parcel)
        self.placed.append(case)

    def cancel(self, force: bool = False) -> None:
        """Let the cases save and stop; with force, kill them."""
        for case in self.placed:
            if force or not case.is_cancelled:
                case.is_cancelled = True
                self.ray.cancel(case.ref, force=force)

    def ended(self) -> Iterator[Placed]:
        """Wait a little, and yield the cases that have ended."""
        done, _ = self.ray.wait([case.ref for case in self.placed], timeout=POLL_S)
        for case in [case for case in self.placed if case.ref in done]:
            self.placed.remove(case)
            yield case

    def wait(self) -> None:
        """Wait until no case runs."""
        if refs := [case.ref for case in self.placed]:
            self.ray.wait(refs, num_returns=len(refs))

    def outcome(self, case: Placed) -> Outcome | None:
        """Return the outcome of a case that has ended; None if it never started.

        It is `interrupted` if its worker or node was lost.
        """
        errors = self.ray.exceptions
        try:
            outcome: Outcome = self.ray.get(case.ref)
        except errors.TaskCancelledError:
            lost = Outcome(case.task.case, "interrupted", "after its worker was lost")
            return lost if case.was_lost else None
        except (errors.RayTaskError, errors.RaySystemError, errors.LocalRayletDiedError) as error:
            cause = getattr(error, "cause", None) or error
            reason = f"Ray cannot run it: {type(cause).__name__}: {first_line(cause)}"
            return Outcome(case.task.case, "stopped", reason)
        except errors.RayError as error:
            reason = f"its worker was lost ({type(error).__name__}: {first_line(error)})"
            return Outcome(case.task.case, "interrupted", reason)
        if not case.was_lost:
            return outcome
        note = "its worker was lost on the way; it went on from its checkpoint"
        return replace(outcome, notes=(*outcome.notes, note))


@contextmanager
def connected(address: str | None) -> Iterator[ModuleType]:
    """Connect to a cluster, unless the caller has done so, and disconnect again.

    Raises:
        UserError: if it cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    # Ray prints what happens to workers to stdout, which --json needs for itself.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    import ray

    if ray.is_initialized():
        if address is not None:
            raise UserError("This process is connected to Ray already; leave ray_address out.")
        yield ray
        return
    _require_listener(address or os.environ.get("RAY_ADDRESS", ""))
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise UserError(f"No Ray cluster at {where}: {first_line(error)}") from error
    try:
        if signal.getsignal(signal.SIGTERM) != before:  # Ray's own handler would end this process
            signal.signal(signal.SIGTERM, before)
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Try a connection to HOST:PORT, because Ray itself tries for minutes.

    Raises:
        UserError: if nothing answers.
    """
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not port.isdigit():  # such as auto
        return
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        raise UserError(
            f"No Ray cluster answers at {address} ({error}); `ray start --head` prints its address."
        ) from error
