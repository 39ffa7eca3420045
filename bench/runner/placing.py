"""Where the cases of suites run, and how many at once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.errors import UserError
from bench.lookup import unknown
from bench.runner.task import Options

ENGINES = ("process", "in-process", "slurm", "ray")


@dataclass(frozen=True)
class Placing:
    """Which engine runs the cases of suites, and how many at once.

    engine: of every suite; None: as each suite says.
    num_workers: cases at once; Ray decides this itself.
    timeout_s: a case that runs for longer is killed and has failed.
    cluster: file that says what the jobs of a cluster ask for.
    wait: also for the cases that a cluster has, or that other drivers run.
    ray_address: of the Ray cluster; None: as Ray finds it, or one for this run.
    gpus_per_case: processes that train a case together, each on a GPU or a share of the cores.
    """

    engine: Literal["process", "in-process", "slurm", "ray"] | None = None
    num_workers: int = 1
    timeout_s: float | None = None
    cluster: Path | None = None
    wait: bool = False
    ray_address: str | None = None
    gpus_per_case: int = 1

    def __post_init__(self) -> None:
        """Refuse values that no engine can have.

        Raises:
            UserError: with what is allowed.
        """
        if self.engine not in (None, *ENGINES):
            raise UserError(unknown("engine", str(self.engine), ENGINES))
        if self.num_workers < 1:
            raise UserError(f"workers must be at least 1, not {self.num_workers}.")
        if self.gpus_per_case < 1:
            raise UserError(f"GPUs per case must be at least 1, not {self.gpus_per_case}.")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UserError(f"The timeout must be more than 0 s, not {self.timeout_s}.")
        if self.engine == "ray" and self.num_workers > 1:
            raise UserError(
                "--workers does not go with --engine ray: Ray runs as many cases at once as the "
                "cluster has room for."
            )
        if self.engine != "ray" and self.ray_address is not None:
            raise UserError("--ray-address goes with --engine ray.")
        if (self.engine == "slurm") != (self.cluster is not None):
            raise UserError(
                "The engine slurm and a cluster file go together (--engine slurm --cluster FILE); "
                "the file says what a case asks for, such as partition: gpu (docs/clusters.md)."
            )
        if self.engine == "slurm" and self.num_workers > 1:
            raise UserError(
                "--engine slurm takes no workers; give max_running in the cluster file."
            )

    def here(self, options: Options) -> Options:
        """Return the options of checks on this machine; the device may be that of other nodes."""
        return replace(options, device="cpu") if self.engine in ("slurm", "ray") else options
