"""A real Slurm on this machine: a controller and two nodes that listen on loopback alone."""

import os
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=4000
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill,UsePss
JobAcctGatherFrequency=task=1
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=10
ReturnToService=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class SlurmCluster:
    """A running Slurm, which programs find by SLURM_CONF."""

    conf: Path

    def ask(self, *words: str) -> str:
        """Run one of Slurm's programs and return what it prints."""
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=60, env=os.environ | self.env
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    def jobs(self, state: str = "all") -> list[str]:
        """List the tasks of arrays, such as 1_0."""
        return self.ask("squeue", "-h", "-r", "-t", state, "-o", "%i").split()

    def is_running(self, job: str) -> bool:
        """Whether a job runs, in its first or in a later turn."""
        return job in self.jobs("running")


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Start Slurm, and end it; skip if it cannot be had."""
    _require()
    # munged refuses a socket that not everybody can reach, as in pytest's own folders.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield from _running(Path(folder))


def _running(folder: Path) -> Iterator[SlurmCluster]:
    port = _free_ports(1 + len(NODES))
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + number} CPUs=2 "
        "RealMemory=8000"
        for number, node in enumerate(NODES, 1)
    ]
    conf = folder / "slurm.conf"
    told = {"host": host, "port": port, "folder": folder, "nodes": "\n".join(nodes)}
    conf.write_text(CONFIGURATION.format(**told))
    cluster = SlurmCluster(conf)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        daemons.append(_start(_munged(folder / "munge"), cluster))
        _wait_until((folder / "munge" / "socket").exists, folder)
        daemons.append(_start(["slurmctld", "-D"], cluster))
        daemons.extend(_start(["slurmd", "-D", "-N", node], cluster) for node in NODES)
        idle = ["idle"] * len(NODES)
        _wait_until(lambda: cluster.ask("sinfo", "-hN", "-o", "%T").split() == idle, folder)
        yield cluster
    finally:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            cluster.ask("scancel", "-u", "root")
            _wait_until(lambda: not cluster.ask("squeue", "-h"), folder)
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()


def _require() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start Slurm's daemons")
    if not socket.gethostbyname(socket.gethostname()).startswith("127."):
        pytest.skip("needs a host name that means this machine alone (127.…)")


def _free_ports(num: int) -> int:
    """Return the first of several free ports in a row."""
    while True:
        first = random.randrange(20000, 30000)
        with suppress(OSError):
            for port in range(first, first + num):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first


def _munged(folder: Path) -> list[str]:
    places = ("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log")
    flags = [f"--{flag}={folder / name}" for flag, name in (*places, ("seed-file", "seed"))]
    return ["munged", "-F", *flags]


def _start(words: Sequence[str], cluster: SlurmCluster) -> "subprocess.Popen[bytes]":
    with (cluster.conf.parent / f"{words[0]}.txt").open("ab") as out:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ | cluster.env,
            start_new_session=True,
        )


def _wait_until(what: Callable[[], object], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        with suppress(AssertionError):
            if what():
                return
        if time.monotonic() > deadline:
            logs = [
                file.read_text(errors="replace")[-2000:] for file in folder.rglob("*.[lt][ox][gt]")
            ]
            raise TimeoutError("Slurm: " + "\n".join(logs))
        time.sleep(0.1)
