"""Cases as jobs of a real Slurm with two nodes; without its programs, these tests are skipped."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from commands import Forked, bench
from slurm_cluster import SlurmCluster, slurm_cluster

from bench.errors import Exit, UserError
from bench.machine.files import read_json
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.record import Record, read_record
from bench.runner.engines.cluster import load_cluster
from bench.runner.engines.submission import Submission, read_submissions

SUITE = """
name: planted
datasets: {{shapes: {{size: [16, 16], num_train: 8, num_val: 4}}}}
models: {models}
recipe: {{epochs: {epochs}, batch_size: 4, precision: fp32}}
"""
# Drivers look more often than usual; they find the test's Slurm.
PLANT = """
os.environ["SLURM_CONF"] = {conf!r}
from bench.runner.engines import slurm
slurm.POLL_S = 0.5
"""
Start = Callable[..., Forked]


def suite_text(*names: str, epochs: int = 3, parents: dict[str, str] | None = None) -> str:
    start = {name: f", init_from: {{model: {parent}}}" for name, parent in (parents or {}).items()}
    models = ", ".join(
        f"{name}: {{arch: 'planted:{name.rstrip('0123456789')}'{start.get(name, '')}}}"
        for name in names
    )
    return SUITE.format(models=f"{{{models}}}", epochs=epochs)


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """A Slurm of two nodes for all tests."""
    with slurm_cluster() as one:
        yield one


@pytest.fixture
def start(
    write_suite: Callable[..., Path], tmp_path: Path, cluster: SlurmCluster
) -> Iterator[Start]:
    """Start `bench run --engine slurm` in a process that ends with the test, as do its jobs."""
    begun: list[Forked] = []

    def start_run(text: str, *more: str, asked: str = "cpus: 1") -> Forked:
        file = tmp_path / "cluster.yaml"
        file.write_text(asked + "\n")
        place = ("--out", tmp_path / "the results", "--device", "cpu")
        args = ("run", write_suite(text), *place, "--engine", "slurm", "--cluster", file, *more)
        plant = PLANT.format(conf=str(cluster.conf))
        begun.append(Forked(*args, out=tmp_path / f"printed{len(begun)}.txt", plant=plant))
        return begun[-1]

    yield start_run
    for process in begun:
        process.kill()
    cluster.ask("scancel", "-u", "root")


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def folder_of(out: Path, model: str) -> CaseFolder:
    [folder] = (out / "planted").glob(f"shapes__{model}__*")
    return CaseFolder(folder)


def record_of(out: Path, model: str) -> Record:
    record = read_record(folder_of(out, model).path)
    assert record is not None
    return record


def trains(out: Path) -> bool:
    beats = [read_json(file) for file in (out / "planted").glob("*__*/alive.json")]
    return any(isinstance(beat, dict) and beat.get("step", 0) > 1 for beat in beats)


def submissions(out: Path) -> list[Submission]:
    return read_submissions(out / "planted")


def test_two_drivers_submit_each_case_once_and_children_follow(
    start: Start, tmp_path: Path
) -> None:
    text = suite_text("good", "tells", "good2", parents={"good2": "good"})
    both = [start(text, "--wait"), start(text, "--wait")]
    codes = [process.wait(200) for process in both]
    assert codes == [Exit.OK, Exit.OK], [process.text for process in both]
    out = tmp_path / "the results"
    arrays = submissions(out)
    assert sorted(len(one.cases) for one in arrays) == [1, 2]
    for model in ("good", "tells", "good2"):
        assert record_of(out, model).status == "ok"
        assert folder_of(out, model).log.read_text().count("epoch {'epoch': 1,") == 1
    assert record_of(out, "good2").model["init_from"] == "shapes__good__default__s0"
    assert "[3/3] shapes__good2__default__s0: ok, train mIoU" in both[0].text
    done = bench("report", out)  # what was submitted is no record
    assert "good2" in done.stdout


def test_a_job_that_fails_before_its_case_begins_is_no_failure_of_the_case(
    start: Start, tmp_path: Path
) -> None:
    refused = start(suite_text("good"), asked="partition: none")
    assert refused.wait(60) == Exit.USAGE, refused.text
    assert "Slurm refuses the job: sbatch: error: invalid partition specified: none" in refused.text
    assert not submissions(tmp_path / "the results")
    failed = start(suite_text("good"), "--wait", asked="setup: [echo no such module, exit 3]")
    assert failed.wait(60) == Exit.INTERRUPTED, failed.text
    [one] = submissions(tmp_path / "the results")
    assert f"ended before the case began: see {one.output(0)}" in failed.text
    assert one.output(0).read_text() == "no such module\n"


@pytest.mark.slow
def test_a_job_that_was_started_again_waits_for_what_is_left_of_its_last_turn(
    start: Start, tmp_path: Path, cluster: SlurmCluster, write_suite: Callable[..., Path]
) -> None:
    out, text = tmp_path / "the results", suite_text("slow", epochs=150)
    place = ("--out", out, "--device", "cpu")
    # Stands for the processes on a node that Slurm has lost.
    left = Forked("run", write_suite(text), *place, out=tmp_path / "left.txt")
    wait_for(lambda: trains(out))
    driver = start(text, "--wait", asked="setup: [export SLURM_RESTART_COUNT=1]")
    wait_for(lambda: submissions(out) and submissions(out)[0].start(0))
    assert left.is_running
    assert driver.wait(200) == Exit.OK, driver.text
    assert left.wait(60) == Exit.OK
    assert folder_of(out, "slow").log.read_text().count("epoch {'epoch': 1,") == 1


@pytest.mark.slow
def test_a_case_whose_time_ends_is_requeued_and_ends_with_the_same_numbers(
    start: Start, tmp_path: Path, cluster: SlurmCluster, write_suite: Callable[..., Path]
) -> None:
    out, text = tmp_path / "the results", suite_text("slow", epochs=60)
    driver = start(text, "--wait")
    wait_for(lambda: trains(out))
    [one] = submissions(out)
    cluster.ask("scancel", "--signal=USR1", "--batch", one.job_of(0))
    assert driver.wait(200) == Exit.OK, driver.text
    training = record_of(out, "slow").training
    assert training is not None
    assert training.resumed == 1
    assert one.output(0).read_text().count("shapes__slow__default__s0: ") == 2
    whole = tmp_path / "whole"
    place = ("--out", whole, "--device", "cpu", "--engine", "in-process")
    bench("run", write_suite(text), *place)
    cut, uncut = (read_weights(folder_of(where, "slow").weights) for where in (out, whole))
    assert all(torch.equal(cut[key], uncut[key]) for key in uncut)


@pytest.mark.slow
def test_a_case_that_gets_no_further_between_two_ends_of_its_time_has_failed(
    start: Start, tmp_path: Path, cluster: SlurmCluster
) -> None:
    out = tmp_path / "the results"
    driver = start(suite_text("slow", epochs=1000), "--wait")
    wait_for(lambda: submissions(out) and submissions(out)[0].job)
    [one] = submissions(out)
    for turn in ("the first", "the second"):  # each before its first step
        wait_for(lambda: one.start(0) and one.end(0) is None)
        cluster.ask("scancel", "--signal=USR1", "--batch", one.job_of(0))
        wait_for(lambda: one.end(0) is not None)
        end = one.end(0)
        assert end is not None
        assert end.is_final == (turn == "the second")
    assert driver.wait(60) == Exit.NEGATIVE, driver.text
    assert "its time ended twice at the same place (before it started)" in driver.text
    assert record_of(out, "slow").status == "failed"


@pytest.mark.slow
def test_a_cancelled_case_goes_back_to_waiting(
    start: Start, tmp_path: Path, cluster: SlurmCluster
) -> None:
    out, text = tmp_path / "the results", suite_text("slow", "good", epochs=1000)
    driver = start(text.replace("epochs: 1000", "epochs: 200"), "--wait")
    wait_for(lambda: trains(out))
    first = submissions(out)[0]
    cluster.ask("scancel", first.job_of(0))
    assert driver.wait(200) == Exit.INTERRUPTED, driver.text
    assert "shapes__slow__default__s0: interrupted: after step" in driver.text
    assert "shapes__good__default__s0: ok" in driver.text  # nothing else is cancelled
    assert folder_of(out, "slow").has_checkpoint
    assert not folder_of(out, "slow").record.exists()
    again = start(text.replace("epochs: 1000", "epochs: 200"))
    assert again.wait(60) == Exit.OK, again.text
    assert "[1/1] shapes__slow__default__s0: submitted: job" in again.text
    assert len(submissions(out)) == 2


@pytest.mark.slow
def test_another_driver_collects_what_was_killed_by_memory(
    start: Start, tmp_path: Path, cluster: SlurmCluster
) -> None:
    out, text = (
        tmp_path / "the results",
        suite_text("slow", "good", epochs=3, parents={"good": "slow"}),
    )
    driver = start(text, "--wait", asked="overrides: [{match: '*slow*', memory: 100M}]")
    wait_for(lambda: submissions(out) and all(one.job for one in submissions(out)))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not cluster.jobs("pending,running,completing"))
    assert not list(out.rglob("record.json"))
    second = start(text)
    assert second.wait(60) == Exit.NEGATIVE, second.text
    record = record_of(out, "slow")
    assert (record.status, record_of(out, "good").status) == ("failed", "blocked")
    assert "used more memory than it had asked for (exceeded" in str(record.reason)
    assert record.failure is not None
    assert record.failure.signal == "SIGKILL"


@pytest.mark.slow
def test_a_failure_blocks_its_children_alone(
    start: Start, tmp_path: Path, cluster: SlurmCluster
) -> None:
    text = suite_text("leave", "good", "good2", parents={"good": "leave"})
    driver = start(text)
    assert driver.wait(60) == Exit.OK, driver.text
    driver = start(text, "--wait")
    assert driver.wait(200) == Exit.NEGATIVE, driver.text
    out = tmp_path / "the results"
    assert "ended with code 3" in str(record_of(out, "leave").reason)
    assert record_of(out, "good").status == "blocked"
    assert record_of(out, "good2").status == "ok"


@pytest.mark.slow
def test_who_leaves_stops_nothing(start: Start, tmp_path: Path, cluster: SlurmCluster) -> None:
    out = tmp_path / "the results"
    driver = start(suite_text("slow", epochs=1000), "--wait")
    wait_for(lambda: trains(out))
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) == Exit.RUNNING_ELSEWHERE, driver.text
    assert "what was submitted goes on" in driver.text
    [one] = submissions(out)
    assert cluster.is_running(one.job_of(0))
    again = start(suite_text("slow", epochs=1000))
    assert again.wait(60) == Exit.OK, again.text
    assert f"submitted: job {one.job_of(0)} (RUNNING on n" in again.text
    assert len(submissions(out)) == 1


@pytest.mark.slow
def test_code_that_changes_while_a_case_waits_is_not_taken_for_what_was_asked(
    start: Start, tmp_path: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tmp_path / "own.py"
    code = (
        "from torch import nn\n\ndef build(num_classes):\n    return nn.Conv2d(3, num_classes, 1)\n"
    )
    network.write_text(code)
    monkeypatch.chdir(tmp_path)
    text = suite_text("good").replace("planted:good", "own:build")
    asked = f"setup: ['export PYTHONPATH={tmp_path}']\ndirectives: {{hold: true}}"
    driver = start(text, "--wait", asked=asked)
    wait_for(lambda: cluster.jobs("pending"))
    network.write_text(code.replace("1)", "1, bias=False)"))
    [one] = submissions(tmp_path / "the results")
    cluster.ask("scontrol", "release", str(one.job))
    assert driver.wait(60) == Exit.INTERRUPTED, driver.text
    assert "the code of its network was changed after it was submitted" in driver.text
    assert not list(tmp_path.rglob("record.json"))


def test_the_plan_shows_what_would_be_submitted(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite = write_suite(suite_text("good", "slow", "good2", parents={"good2": "good"}))
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "partition: gpu\ntime: 8:00:00\ngpus: 1\nmemory: 8G\nmax_running: 4\n"
        "directives: {exclusive: true, nice: 10}\nsetup: [module load cuda]\npython: python3\n"
        "overrides: [{match: '*slow*', memory: 64G, directives: {nice: 20}}]\n"
    )
    flags = (
        "--engine",
        "slurm",
        "--cluster",
        file,
        "--out",
        tmp_path / "the results",
        "--device",
        "cuda",
    )
    shown = bench("run", suite, *flags, "--dry-run", SLURM_CONF="/none", PATH="").stdout
    first, second, third = shown.split("\nArray ")[1:]
    assert first.startswith("1: shapes__good__default__s0\n#!/bin/bash\n")
    assert second.startswith("2: shapes__slow__default__s0\n")
    assert third.startswith("3: shapes__good2__default__s0\nafter shapes__good__default__s0\n")
    given = {
        '--partition="gpu"',
        '--time="8:00:00"',
        '--gres="gpu:1"',
        '--mem="8G"',
        "--exclusive",
        '--nice="10"',
        "--array=0-0%4",
        "--signal=B:USR1@120",
        "--requeue",
    }
    lines = first.splitlines()
    assert {f"#SBATCH {option}" for option in given} <= set(lines)
    assert lines.index("module load cuda") < lines.index(
        next(line for line in lines if line.startswith("exec python3 -m bench."))
    )
    assert '#SBATCH --mem="64G"' in second
    assert '#SBATCH --nice="20"' in second
    assert not list((tmp_path / "the results").rglob("*"))


def test_every_fault_of_a_cluster_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "partition: gpu\ntime: 0:02:00\nmemroy: 3G\ncpus: 0\nmemory: lots\n"
        "directives: {array: 3}\noverrides:\n  - {match: '*', gpus: 1, tiem: 3}\n  - {gpus: 1}\n"
        "account: 'a\"b'\n"
    )
    with pytest.raises(UserError) as error:
        load_cluster(file)
    faults = {
        2: "time: Give at least 5 minutes",
        3: "memroy: Unknown key 'memroy'. Did you mean 'memory'?",
        4: "cpus: Input should be greater than 0",
        5: "memory: Give a size with its unit, such as 32G",
        6: "directives: --array is given by --engine slurm itself",
        8: "overrides.0.tiem: Unknown key 'tiem'. Did you mean 'time'?",
        9: "overrides.1: The key 'match' is required",
        10: "account: Give one line without quotes",
    }
    told = str(error.value).splitlines()
    assert len(told) == len(faults)
    for line, (number, text) in zip(told, faults.items(), strict=True):
        assert line.startswith(f"{file}:{number}: {text}")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "The engine slurm and a cluster file go together"),
        (("--cluster", "cluster.yaml", "--workers", "2"), "give max_running in the cluster file"),
        (("--cluster", "cluster.yaml"), "needs Slurm's program sbatch"),
        (("--cluster", "none.yaml"), "Cannot read none.yaml"),
    ],
)
def test_what_slurm_needs(
    write_suite: Callable[..., Path], tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    suite = write_suite(suite_text("good"))
    (tmp_path / "cluster.yaml").write_text("time: 1:00:00\n")
    with chdir(tmp_path):
        args = ("run", suite, "--engine", "slurm", *flags)
        assert said in bench(*args, code=Exit.USAGE, cwd=tmp_path, PATH="").stderr
