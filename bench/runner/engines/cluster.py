"""What the jobs of a cluster ask for: the file of `--cluster`."""

import fnmatch
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from bench.errors import UserError
from bench.suite import yaml_file
from bench.suite.load import located
from bench.suite.schema import Frozen
from bench.suite.validation_errors import describe

NOTICE_S = 120  # Slurm tells a case this long before its time ends, or up to a minute earlier
LEAST_TIME_S = 300
OURS = (  # what the engine asks of sbatch itself
    *("array", "chdir", "dependency", "error", "job-name", "nodes", "ntasks", "open-mode"),
    *("output", "parsable", "requeue", "no-requeue", "signal", "wait", "wrap", "test-only"),
)


def _time(text: str) -> str:
    if time_s(text) < LEAST_TIME_S:
        raise ValueError(
            f"Give at least 5 minutes, not {text!r}: a case saves {NOTICE_S // 60} minutes before "
            "its time ends."
        )
    return text


def time_s(text: str) -> float:
    """Return the seconds of a time as Slurm writes it.

    Raises:
        ValueError: if it is none.
    """
    if not (match := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?", text)):
        raise ValueError(f"Give hours:minutes:seconds or days-hours:minutes:seconds, not {text!r}.")
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1]:
        return ((days * 24 + first) * 60 + second) * 60 + third
    if match[4]:
        return (first * 60 + second) * 60 + third
    return first * 60 + second


def _plain(text: str) -> str:
    if not text.strip() or "\n" in text or '"' in text:
        raise ValueError(f"Give one line without quotes, not {text!r}.")
    return text


def _memory(text: str) -> str:
    if not re.fullmatch(r"\d+[KMGT]", text):
        raise ValueError(f"Give a size with its unit, such as 32G, not {text!r}.")
    return text


Time = Annotated[str, AfterValidator(_time)]
Memory = Annotated[str, AfterValidator(_memory)]
Plain = Annotated[str, AfterValidator(_plain)]


class Resources(Frozen):
    """What one case asks for; what is left out is as the cluster has it by default."""

    partition: Plain | None = Field(None, description="partition, or several with commas")
    time: Time | None = Field(None, description="time limit as Slurm writes it: 8:00:00, 2-0:00:00")
    gpus: NonNegativeInt | Plain | None = Field(None, description="GPUs: 1, or with a type: a100:1")
    cpus: PositiveInt | None = Field(None, description="cores")
    memory: Memory | None = Field(None, description="main memory: 32G")
    account: Plain | None = Field(None, description="account that pays")
    qos: Plain | None = Field(None, description="quality of service")
    constraint: Plain | None = Field(None, description="features of a node: a100|h100")
    directives: dict[str, str | int | float | bool] = Field(
        {}, description="other options of sbatch without the dashes: {nice: 100, exclusive: true}"
    )

    @field_validator("directives", mode="before")
    @classmethod
    def _are_not_ours(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name in OURS:
                raise ValueError(f"--{name} is given by --engine slurm itself; remove it.")
            if not re.fullmatch(r"[a-z][a-z0-9-]+", str(name)):
                raise ValueError(f"{name!r} is no long option of sbatch; give it as in nice: 100.")
        return given

    @property
    def options(self) -> list[str]:
        """The options of sbatch."""
        gres = f"gpu:{self.gpus}" if self.gpus else None
        named = {
            "partition": self.partition,
            "time": self.time,
            "gres": gres,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            **self.directives,
        }
        given = {name: value for name, value in named.items() if value not in (None, False)}
        return [f"--{n}" if value is True else f'--{n}="{value}"' for n, value in given.items()]


class Override(Resources):
    """Other resources for some cases."""

    match: str = Field(description="glob on the names of cases, as of --filter")


class Cluster(Resources):
    """Where and how a cluster runs cases; it changes no result."""

    overrides: tuple[Override, ...] = Field((), description="other resources for some cases")
    max_running: PositiveInt | None = Field(
        None, description="the most cases of an array that run at once"
    )
    setup: tuple[str, ...] = Field((), description="lines of bash to run first: module load cuda")
    python: Plain | None = Field(
        None, description="Python on the nodes; by default the one that submits"
    )

    def resources(self, name: str) -> Resources:
        """Return what the case of a name asks for; of several overrides, the last one holds."""
        asked = {key: getattr(self, key) for key in Resources.model_fields}
        for override in self.overrides:
            if fnmatch.fnmatchcase(name, override.match):
                given = override.model_fields_set - {"match"}
                directives = {**asked["directives"], **override.directives}
                asked |= {key: getattr(override, key) for key in given} | {"directives": directives}
        return Resources(**asked)


def load_cluster(file: Path) -> Cluster:
    """Read the file of a cluster.

    Raises:
        UserError: with every fault and its line.
    """
    document = yaml_file.read(file)
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        raise UserError(f"{file}: a cluster is keys and values, such as partition: gpu.")
    try:
        cluster = Cluster.model_validate(data)
    except ValidationError as error:
        raise located(document, [*document.faults, *describe(error, Cluster)]) from error
    if document.faults:
        raise located(document, document.faults)
    return cluster
