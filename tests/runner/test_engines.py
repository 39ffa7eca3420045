"""A process for each case: deaths, hangs, stops, several at once, several drivers."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import Forked

from bench.errors import Exit, UserError
from bench.machine.device import pick_device
from bench.machine.files import read_json
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder
from bench.records.frame import load as load_frame
from bench.records.record import Record, read_evaluations, read_record
from bench.runner.engines import case_process, in_process, processes
from bench.runner.engines.engine import Engine
from bench.runner.engines.processes import Slot
from bench.runner.plan import plan
from bench.runner.run_suite import run_planned
from bench.runner.stopping import stopping
from bench.runner.task import Options, Outcome
from bench.runner.validate import check
from bench.suite.expand import expand
from bench.suite.load import load

SUITE = """
name: planted
datasets: {{shapes: {{size: [32, 32], num_train: 16, num_val: 4}}}}
models: {models}
recipe: {{epochs: {epochs}, batch_size: 4}}
"""
Start = Callable[..., Forked]


def suite_text(*names: str, epochs: int = 3) -> str:
    models = ", ".join(f"{name}: {{arch: 'planted:{name}'}}" for name in names)
    return SUITE.format(models=f"{{{models}}}", epochs=epochs)


@pytest.fixture
def run(write_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., list[Outcome]]:
    """Run a suite given as text with an engine."""

    def run_text(
        text: str,
        engine: Engine = processes.run,
        out: str = "out",
        fail_fast: bool = False,
        **options: object,
    ) -> list[Outcome]:
        file = load(write_suite(text))
        cases = expand(file.suite)
        checked = check(file, cases, {}, need_data=True)
        planned = plan(file.suite, cases, tmp_path / out / "planted", checked)
        chosen = Options(device="cpu", **options)
        return list(run_planned(planned, chosen, engine, fail_fast=fail_fast))

    return run_text


def folder_of(out: Path, model: str) -> CaseFolder:
    [folder] = (out / "planted").glob(f"shapes__{model}__*")
    return CaseFolder(folder)


def record_of(out: Path, model: str) -> Record:
    record = read_record(folder_of(out, model).path)
    assert record is not None
    return record


def test_what_ends_a_process_costs_its_case_alone(
    run: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    two = partial(processes.run, slots=(Slot(), Slot()))
    outcomes = run(suite_text("segv", "kill", "leave", "good"), two)
    assert {o.case.model_name: o.status for o in outcomes} == {
        "segv": "failed",
        "kill": "failed",
        "leave": "failed",
        "good": "ok",
    }
    out = tmp_path / "out"
    for model, name, code in (("segv", "SIGSEGV", None), ("kill", "SIGKILL", None)):
        record = record_of(out, model)
        assert f"ended by {name}" in str(record.reason)
        assert record.failure is not None
        assert (record.failure.signal, record.failure.exit_code) == (name, code)
        assert record.failure.peak_memory_mib is not None
        assert record.failure.peak_memory_mib > 100
        assert record.failure.log_tail
    segv = record_of(out, "segv").failure
    assert segv is not None
    assert any("planted.py" in line for line in segv.log_tail)  # where it was, by faulthandler
    leave = record_of(out, "leave")
    assert "ended with code 3" in str(leave.reason)
    assert leave.failure is not None
    assert leave.failure.exit_code == 3


def test_a_network_that_exits_has_failed(run: Callable[..., list[Outcome]], tmp_path: Path) -> None:
    [outcome] = run(suite_text("exits"), in_process.run)
    assert outcome.status == "failed"
    assert str(outcome.reason).startswith("SystemExit: 0 (traceback in log.txt)")


@pytest.mark.parametrize("by", ["timeout", "silence"])
def test_a_case_that_hangs_is_ended(
    run: Callable[..., list[Outcome]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    monkeypatch.setattr(processes, "HANG_S", 15.0 if by == "silence" else 1000.0)
    engine = partial(processes.run, timeout_s=15.0 if by == "timeout" else None)
    [outcome] = run(suite_text("hang"), engine)
    assert outcome.status == "failed"
    said = {"timeout": "ran for more than 15 s (--timeout)", "silence": "wrote no heartbeat"}
    assert said[by] in str(outcome.reason)
    failure = record_of(tmp_path / "out", "hang").failure
    assert failure is not None
    assert any("misbehave" in line for line in failure.log_tail)


def test_a_child_waits_for_its_parent(run: Callable[..., list[Outcome]], tmp_path: Path) -> None:
    text = suite_text("good", "slow").replace(
        "models: {", "models: {child: {arch: 'planted:good', init_from: {model: slow}}, "
    )
    outcomes = run(text, partial(processes.run, slots=(Slot(), Slot())), num_sharing=2)
    assert [o.status for o in outcomes] == ["ok"] * 3
    assert outcomes[-1].case.model_name == "child"
    assert record_of(tmp_path / "out", "child").model["init_from"] == "shapes__slow__default__s0"
    frame = load_frame(tmp_path / "out")
    assert frame["num_sharing"].eq(2).all()
    assert frame["epoch_s"].isna().all()


def is_training(folder: CaseFolder) -> bool:
    beat = read_json(folder.alive)
    return isinstance(beat, dict) and beat.get("step", 0) > 0


def test_a_stopped_case_goes_on_as_one_that_was_not(
    run: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    text = suite_text("slow", epochs=30)

    def trains() -> bool:
        return any(map(is_training, map(CaseFolder, (tmp_path / "out" / "planted").glob("*__*"))))

    [outcome] = run(text, should_stop=trains)
    assert outcome.status == "interrupted"
    assert re.fullmatch(r"after step \d+ of 120", str(outcome.reason))
    assert folder_of(tmp_path / "out", "slow").has_checkpoint
    assert [o.status for o in run(text)] == ["ok"]
    run(text, in_process.run, out="whole")
    stopped, whole = (
        read_weights(folder_of(tmp_path / o, "slow").weights) for o in ("out", "whole")
    )
    assert all(torch.equal(stopped[key], whole[key]) for key in whole)
    record = record_of(tmp_path / "out", "slow")
    assert record.training is not None
    assert record.training.resumed == 1


def test_fresh_processes_give_the_same_numbers(
    run: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    text = suite_text("good", epochs=2).replace("'planted:good'", "custom/enet")
    text = text.replace("batch_size: 4", "batch_size: 4, augment: [flip]")
    ways = {
        "here": {"engine": in_process.run, "cache": "ram"},
        "none": {"loader_workers": 2, "cache": "none"},
        "disk": {"loader_workers": 0, "cache": "disk"},
    }
    for out, options in ways.items():
        assert [o.status for o in run(text, out=out, **options)] == ["ok"]
    states = [read_weights(folder_of(tmp_path / out, "good").weights) for out in ways]
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in state)
    scored = [
        [(e.name, e.scores) for e in read_evaluations(folder_of(tmp_path / out, "good").path)]
        for out in ways
    ]
    assert scored[0] == scored[1] == scored[2]


def test_a_case_that_is_terminated_while_it_starts_has_not_failed(
    run: Callable[..., list[Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*args: object) -> processes.Running:
        case = begin(*args)
        case.process.send_signal(signal.SIGTERM)
        return case

    begin = processes._start
    monkeypatch.setattr(processes, "_start", start)
    [outcome] = run(suite_text("good"))
    assert outcome.status == "interrupted"
    assert outcome.reason in ("by SIGTERM", "before it started")
    assert not list(tmp_path.rglob("record.json"))


def test_the_server_of_case_processes(
    run: Callable[..., list[Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [o.status for o in run(suite_text("good", epochs=1))] == ["ok"]
    server = case_process._server().process
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1  # a fork copies one thread
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    assert "libtorch" in maps
    assert "planted" not in "".join(Path(f"/proc/{server.pid}/environ").read_text())
    monkeypatch.setenv("BENCH_TOLD", "yes")
    assert [o.status for o in run(suite_text("tells"))] == ["ok"]
    log = folder_of(tmp_path / "out", "tells").log.read_text()
    [session] = set(re.findall(r"BENCH_TOLD=yes in (\d+), True", log))  # of its own
    assert int(session) not in (os.getsid(0), os.getsid(server.pid))
    server.kill()
    server.wait()
    assert [o.status for o in run(suite_text("good", epochs=1), out="again")] == ["ok"]
    assert case_process._server().process.pid != server.pid


def test_the_server_ends_with_its_engine(tmp_path: Path) -> None:
    code = (
        "from bench.runner.engines import case_process as c; "
        "print(c._server().process.pid, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    process = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(600):
        ended = not process.exists() or process.read_text().split()[2] == "Z"
        if ended:
            break
        time.sleep(0.1)
    assert ended


def test_a_signal_without_a_name_costs_its_case_alone(
    run: Callable[..., list[Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*args: object) -> processes.Running:
        case = begin(*args)
        case.process.send_signal(signal.SIGRTMIN + 3)
        return case

    begin = processes._start
    monkeypatch.setattr(processes, "_start", start)
    [outcome] = run(suite_text("good"))
    assert outcome.status == "failed"
    assert f"ended by signal {signal.SIGRTMIN + 3}" in str(outcome.reason)


def test_an_untrained_case_also_says_who_shared_the_machine(
    run: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    [outcome] = run(suite_text("good", epochs=0), in_process.run, num_sharing=2)
    assert outcome.status == "ok"
    training = record_of(tmp_path / "out", "good").training
    assert training is not None
    assert training.num_sharing == 2


def test_times_that_were_shared_stay_so(run: Callable[..., list[Outcome]], tmp_path: Path) -> None:
    beats = iter([False] * 6)
    text = suite_text("good", epochs=4)
    [outcome] = run(text, in_process.run, num_sharing=2, should_stop=lambda: next(beats, True))
    assert outcome.status == "interrupted"
    assert [o.status for o in run(text, in_process.run)] == ["ok"]
    training = record_of(tmp_path / "out", "good").training
    assert training is not None
    assert (training.resumed, training.num_sharing) == (1, 2)


def test_fail_fast_stops_the_others_after_saving(
    run: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    two = partial(processes.run, slots=(Slot(), Slot()))
    [outcome] = run(suite_text("leave", "slow", epochs=1000), two, fail_fast=True)
    assert outcome.case.model_name == "leave"
    with folder_of(tmp_path / "out", "slow").hold():  # its process has ended
        pass


@pytest.fixture
def start(write_suite: Callable[..., Path], tmp_path: Path) -> Iterator[Start]:
    """Start `bench run` in a process that ends with the test."""
    begun: list[Forked] = []

    def start_run(text: str, *more: str) -> Forked:
        args = ("run", write_suite(text), "--out", tmp_path / "out", "--device", "cpu", *more)
        begun.append(Forked(*args, out=tmp_path / f"printed{len(begun)}.txt"))
        return begun[-1]

    yield start_run
    for process in begun:
        process.kill()


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def trains(out: Path) -> bool:
    return any(map(is_training, map(CaseFolder, (out / "planted").glob("*__*"))))


def is_free(folder: CaseFolder) -> bool:
    return not folder.alive.exists()


@pytest.mark.parametrize(
    ("number", "code", "engine"),
    [
        (signal.SIGINT, Exit.INTERRUPTED, "process"),
        (signal.SIGINT, Exit.INTERRUPTED, "in-process"),
        (signal.SIGTERM, Exit.TERMINATED, "process"),
        (signal.SIGTERM, Exit.TERMINATED, "in-process"),
        (signal.SIGUSR1, Exit.TERMINATED, "process"),
        (signal.SIGHUP, Exit.TERMINATED, "in-process"),
        (signal.SIGUSR2, Exit.TERMINATED, "in-process"),
    ],
)
def test_signals_stop_after_saving(
    start: Start, tmp_path: Path, number: int, code: Exit, engine: str
) -> None:
    process = start(suite_text("slow", epochs=1000), "--engine", engine)
    wait_for(lambda: trains(tmp_path / "out"))
    process.send_signal(number)
    assert process.wait(60) == code, process.text
    text = process.text
    assert "interrupted: after step" in text
    assert "the same command then goes on" in text
    assert folder_of(tmp_path / "out", "slow").has_checkpoint


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_case_that_gets_the_signal_of_a_cluster_itself_does_not_die(
    run: Callable[..., list[Outcome]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def look(case: processes.Running) -> None:
        if not sent and is_training(CaseFolder(case.task.folder)):
            sent.append(case.process.send_signal(number))
        real(case)

    sent: list[None] = []
    real = processes.Running.look
    monkeypatch.setattr(processes.Running, "look", look)
    [outcome] = run(suite_text("slow", epochs=20))
    expected = "ok" if number == signal.SIGUSR1 else "interrupted"  # USR1 asks where it hangs
    assert (outcome.status, len(sent)) == (expected, 1)


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as stop:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGUSR2) != signal.SIG_DFL
        assert not stop.asked
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_stops_at_once(start: Start, tmp_path: Path) -> None:
    process = start(suite_text("hang"))
    wait_for(lambda: any("epoch {" in log.read_text() for log in tmp_path.rglob("log.txt")))
    time.sleep(2)  # two passes later it hangs
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) not in (Exit.OK, Exit.INTERRUPTED)
    with folder_of(tmp_path / "out", "hang").hold():  # no process holds it any more
        pass


def test_a_case_stops_with_its_driver(start: Start, tmp_path: Path) -> None:
    process = start(suite_text("slow", epochs=1000))
    wait_for(lambda: trains(tmp_path / "out"))
    process.kill()
    folder = folder_of(tmp_path / "out", "slow")
    wait_for(lambda: is_free(folder), 30)
    assert folder.has_checkpoint
    assert read_record(folder.path) is None


def test_two_drivers_run_no_case_twice(start: Start, tmp_path: Path) -> None:
    names = ("slow", "good", "greedy")
    text = suite_text(*names, epochs=5).replace("batch_size: 4", "batch_size: 2")
    both = [start(text), start(text)]
    codes = [process.wait(200) for process in both]
    texts = [process.text for process in both]
    assert set(codes) <= {Exit.OK, Exit.RUNNING_ELSEWHERE}, texts
    assert Exit.OK in codes or "held: running on" in texts[0] + texts[1]
    for name in names:
        assert record_of(tmp_path / "out", name).status == "ok"
        log = folder_of(tmp_path / "out", name).log.read_text()
        assert log.count("epoch {'epoch': 1,") == 1


def test_a_results_folder_that_disappears(start: Start, tmp_path: Path) -> None:
    process = start(suite_text("slow", "good", epochs=1000))
    wait_for(lambda: trains(tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "away")
    assert process.wait(60) == Exit.NEGATIVE, process.text
    text = process.text
    assert "stopped: " in text
    assert "disappeared while its case ran" in text
    assert not list((tmp_path / "out").rglob("record.json"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is almost full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills(
    run: Callable[..., list[Outcome]],
    tmp_path: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.training.trainer.CHECKPOINT_EVERY_S", 0.0)
    (tmp_path / "out").symlink_to(small_disk)
    filler = small_disk / "filler"
    text = suite_text("good", epochs=5).replace("'planted:good'", "custom/enet")

    def fill() -> bool:
        if not filler.exists() and list(small_disk.rglob("previous.pt")):
            free = os.statvfs(small_disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_bsize - 100_000))
        return False

    [outcome] = run(text, in_process.run, should_stop=fill)
    assert outcome.status == "stopped"
    assert "No space left on device" in str(outcome.reason)
    folder = folder_of(tmp_path / "out", "good")
    assert folder.has_checkpoint
    filler.unlink()
    [outcome] = run(text, in_process.run)
    assert outcome.status == "ok"
    record = record_of(tmp_path / "out", "good")
    assert record.training is not None
    assert record.training.resumed == 1
    run(text, in_process.run, out="whole")
    cut, whole = (read_weights(folder_of(tmp_path / o, "good").weights) for o in ("out", "whole"))
    assert all(torch.equal(cut[key], whole[key]) for key in whole)


def test_the_machine_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = pick_device("cpu")
    assert processes.divide(1, cpu) == [Slot()]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    assert processes.divide(2, cpu) == [Slot((0, 2, 4)), Slot((1, 3))]
    with pytest.raises(UserError, match="--workers 6: this machine has cores for at most 5"):
        processes.divide(6, cpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus = torch.device("cuda")
    assert [slot.gpus for slot in processes.divide(2, gpus)] == [("0",), ("1",)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7,-1")
    assert [slot.gpus for slot in processes.divide(3, gpus)] == [("3",), ("5",), ("7",)]
    with pytest.raises(UserError, match="GPUs or MIG slices, 1 per case; this machine has"):
        processes.divide(4, gpus)
    with pytest.raises(UserError, match="GPUs or MIG slices, 1 per case; this machine has"):
        processes.divide(2, torch.device("cuda:1"))


@pytest.mark.parametrize("flags", [("--workers", "2"), ("--timeout", "9")])
def test_one_process_cannot_do_the_work_of_several(start: Start, flags: tuple[str, ...]) -> None:
    process = start(suite_text("good"), "--engine", "in-process", *flags)
    assert process.wait(60) == Exit.USAGE
    assert "--engine process" in process.text
