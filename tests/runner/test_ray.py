"""The engine on a Ray cluster: a real one of several nodes on this machine."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from commands import Forked

from bench.errors import Exit, UserError
from bench.machine.files import read_json
from bench.machine.lease import Owner
from bench.models.weight_files import read_weights
from bench.records.case_folder import CaseFolder, Held
from bench.records.record import read_evaluations, read_record
from bench.runner.engines import on_ray, processes, ray_node
from bench.runner.engines.engine import Engine
from bench.runner.engines.ray_cluster import Share
from bench.runner.engines.ray_node import Parcel, run_on_node
from bench.runner.placing import Placing
from bench.runner.plan import plan
from bench.runner.run_suite import run_planned
from bench.runner.task import Options, Outcome, Task
from bench.runner.validate import check
from bench.suite.expand import expand
from bench.suite.load import load

Run = Callable[..., list[Outcome]]
MINE = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, num_classes, 1))
"""
SLOW = """
name: slow
datasets: {shapes: {size: [32, 32], num_train: 16, num_val: 4}}
models: {slow: {arch: 'planted:slow'}}
recipe: {epochs: 20, batch_size: 4}
"""
NODE: Mapping[str, Any] = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs and a node with one, both on the loopback device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # stay on 127.0.0.1
        pytest.importorskip("ray", reason="needs the extra ray")
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            made.add_node(**NODE, num_cpus=1)
            yield made
        finally:
            made.shutdown()
        names = [process.name() for process in psutil.Process().children(recursive=True)]
        assert not [name for name in names if "ray" in name]


@pytest.fixture
def on_cluster(cluster: Any) -> Engine:
    return partial(on_ray.run, address=cluster.address)


def run_in(folder: Path, text: str, engine: Engine, **options: object) -> list[Outcome]:
    """Run a suite given as text with an engine."""
    folder.mkdir(exist_ok=True)
    (folder / "suite.yaml").write_text(text)
    file = load(folder / "suite.yaml")
    cases = expand(file.suite)
    checked = check(file, cases, {}, need_data=True)
    planned = plan(file.suite, cases, folder / file.suite.name, checked)
    return list(run_planned(planned, Options(device="cpu", **options), engine))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda text, engine, out="out", **more: run_in(tmp_path / out, text, engine, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, torch.Tensor]:
    """The weights of the slow case if it is not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert [outcome.status for outcome in run_in(folder, SLOW, processes.run)] == ["ok"]
    return read_weights(only(folder).weights)


def only(out: Path) -> CaseFolder:
    [folder] = (out / "slow").glob("*__slow__*")
    return CaseFolder(folder)


def trains(out: Path) -> bool:
    beats = [read_json(file) for file in out.rglob("alive.json")]
    return any(isinstance(beat, dict) and beat.get("step", 0) > 8 for beat in beats)


def worker_of(out: Path) -> psutil.Process:
    """Return Ray's worker that runs the case."""
    beat = read_json(only(out).alive)
    worker = psutil.Process(beat["pid"]).parent().parent()
    assert "ray::" in worker.name()
    return worker


def once(act: Callable[[], None], out: Path) -> Callable[[], bool]:
    """Return a should_stop that never stops, but acts once when a case trains."""
    done: list[None] = []

    def look() -> bool:
        if not done and trains(out):
            done.append(act())
        return False

    return look


def assert_went_on(out: Path, whole: Mapping[str, torch.Tensor]) -> None:
    """Check that the case was resumed and equals one that was never interrupted."""
    record = read_record(only(out).path)
    assert record is not None
    assert record.training is not None
    assert record.training.resumed == 1
    weights = read_weights(only(out).weights)
    assert all(torch.equal(weights[key], whole[key]) for key in whole)


def test_the_scores_are_those_of_the_local_engine(
    run: Run, on_cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine_on_ray.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path / "own")
    text = SLOW.replace("epochs: 20", "epochs: 2, augment: [flip]").replace(
        "slow: {arch: 'planted:slow'}",
        "child: {arch: 'planted:good', init_from: {model: parent}}, "
        "parent: {arch: 'planted:good'}, "
        "own: {arch: 'mine_on_ray:net'}",
    )
    told: list[str] = []

    def announced(tasks: Any, options: Options, announce: Any) -> Any:
        return on_cluster(tasks, options, lambda task: told.append(task.case.model_name))

    outcomes = run(text, announced, out="ray")
    assert {o.case.model_name: o.status for o in outcomes} == dict.fromkeys(
        ("parent", "child", "own"), "ok"
    )
    assert sorted(told) == ["child", "own", "parent"]
    assert told.index("parent") < told.index("child")
    assert [o.status for o in run(text, processes.run, out="local")] == ["ok"] * 3
    folders = [sorted((tmp_path / out / "slow").glob("*__*")) for out in ("ray", "local")]
    for there, here in zip(*folders, strict=True):
        assert there.name == here.name
        scores = [[(e.name, e.scores) for e in read_evaluations(f)] for f in (there, here)]
        assert scores[0] == scores[1]
        weights = [read_weights(CaseFolder(folder).weights) for folder in (there, here)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    assert not list(tmp_path.rglob(".shared-*"))


@pytest.mark.slow
def test_a_stopped_case_goes_on(
    run: Run, on_cluster: Engine, tmp_path: Path, whole: Mapping[str, torch.Tensor]
) -> None:
    text = SLOW.replace("'planted:slow'}", "'planted:slow'}, other: {arch: 'planted:good'}")
    [outcome] = run(text, on_cluster, should_stop=lambda: trains(tmp_path))  # the other one waits
    assert (outcome.status, str(outcome.reason)[:10]) == ("interrupted", "after step")
    assert [o.status for o in run(text, on_cluster)] == ["ok", "ok"]
    assert_went_on(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_case_outlives_its_worker(
    run: Run, on_cluster: Engine, tmp_path: Path, whole: Mapping[str, torch.Tensor]
) -> None:
    out = tmp_path / "out"
    [outcome] = run(SLOW, on_cluster, should_stop=once(lambda: worker_of(out).kill(), out))
    assert outcome.status == "ok", outcome.reason
    assert "its worker was lost" in outcome.notes[-1]
    assert_went_on(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_case_whose_worker_is_always_lost_has_failed(
    run: Run, on_cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "MOST_LOSSES", 1)
    killed: set[int] = set()

    def kill() -> bool:
        for file in tmp_path.rglob("alive.json"):
            beat = read_json(file)
            if isinstance(beat, dict) and beat["pid"] not in killed and "epoch" in beat:
                killed.add(beat["pid"])
                worker_of(tmp_path / "out").kill()
        return False

    text = SLOW.replace("num_train: 16", "num_train: 4000")
    [outcome] = run(text, on_cluster, should_stop=kill)
    assert outcome.status == "failed"
    assert len(killed) == 2
    assert "lost 2 times within one epoch" in str(outcome.reason)
    record = read_record(only(tmp_path / "out").path)
    assert record is not None
    assert record.failure is not None
    assert record.failure.log_tail
    assert only(tmp_path / "out").has_checkpoint


@pytest.mark.slow
def test_a_case_outlives_its_node(
    run: Run, on_cluster: Engine, cluster: Any, tmp_path: Path, whole: Mapping[str, torch.Tensor]
) -> None:
    out = tmp_path / "out"
    cluster.add_node(**NODE, num_cpus=1)

    def remove() -> None:
        raylet = worker_of(out).ppid()
        [node] = [
            node
            for node in cluster.list_all_nodes()
            if node.all_processes["raylet"][0].process.pid == raylet
        ]
        cluster.remove_node(node, allow_graceful=False)

    [outcome] = run(SLOW, on_cluster, should_stop=once(remove, out))
    assert outcome.status == "ok", outcome.reason
    assert_went_on(tmp_path / "out", whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_on_a_cluster(
    write_suite: Callable[..., Path], cluster: Any, tmp_path: Path, number: int
) -> None:
    text = SLOW.replace("epochs: 20", "epochs: 1000")
    args = ("--device", "cpu", "--engine", "ray", "--ray-address", cluster.address, "--json")
    out, printed = tmp_path / "out", tmp_path / "printed.txt"
    process = Forked("run", write_suite(text), "--out", out, *args, out=printed)
    try:
        deadline = time.monotonic() + 120
        while not trains(out):
            assert time.monotonic() < deadline, process.text
            time.sleep(0.1)
        folder = only(out)
        process.send_signal(number)
        code = process.wait(60)
        while folder.alive.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
    assert folder.has_checkpoint
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
        return
    assert code == (Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED)
    [line] = [json.loads(line) for line in process.text.splitlines() if line.startswith("{")]
    assert line["status"] == "interrupted"
    assert line["reason"].startswith("after step")
    assert "raylet" not in process.text


def test_a_node_without_the_folder_says_so(
    tmp_path: Path, write_suite: Callable[..., Path]
) -> None:
    file = load(write_suite())
    [case] = expand(file.suite)
    task = Task.of(file.suite, case, tmp_path / "away" / case.folder)
    parcel = Parcel(task, Options(), None, 1, tmp_path / "away" / "marker", "/", [], False)
    outcome = run_on_node(parcel)
    assert outcome.status == "stopped"
    assert f"does not see {tmp_path / 'away'} as the driver does" in str(outcome.reason)


def test_the_case_of_a_dead_host_is_free_after_its_silence(
    tmp_path: Path, write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_LEASE_S", "1.5")
    file = load(write_suite())
    [case] = expand(file.suite)
    folder = CaseFolder(tmp_path / case.folder)
    folder.path.mkdir()
    owner = Owner("away", 1, "another machine", None, "token")
    held = folder.lease.with_name(f"{folder.lease.name}.1")
    held.write_text(f"{json.dumps(asdict(owner))}\n")
    with pytest.raises(Held), folder.hold():
        pass
    ray_node.await_former(Task.of(file.suite, case, folder.path))
    with folder.hold():
        pass


GPUS = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0, "GPU": 4.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("nodes", "device", "num_gpus", "share", "num"),
    [
        (GPUS, "auto", 1, Share(8, 1), 6),
        (GPUS, "cuda", 1, Share(8, 1), 6),
        (GPUS, "cuda", 2, Share(16, 2), 3),
        (GPUS, "auto", 4, Share(64, 4), 1),
        (GPUS, "cpu", 2, Share(4, 0), 21),
        ([{}, {"CPU": 1.0}, {"CPU": 1.0}], "auto", 1, Share(1, 0), 2),
        ([{"GPU": 4.0}], "auto", 1, Share(0, 1), 4),
    ],
)
def test_what_a_case_uses_of_a_node(
    nodes: list[dict[str, float]], device: str, num_gpus: int, share: Share, num: int
) -> None:
    assert Share.of(nodes, device, num_gpus) == share
    assert share.num_in(nodes) == num


def test_what_a_cluster_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="has no GPU; give --device cpu"):
        Share.of([{"CPU": 4.0}], "cuda", 1)
    with pytest.raises(UserError, match="has no node with 8 GPUs; give --device cpu"):
        Share.of(GPUS, "auto", 8)
    with pytest.raises(UserError, match="no CPU for cases"):
        Share.of([{}], "auto", 1)
    with pytest.raises(UserError, match="--workers does not go with --engine ray"):
        Placing("ray", 2)
    with pytest.raises(UserError, match="--ray-address goes with --engine ray"):
        Placing("process", ray_address="auto")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UserError, match="the device is auto, cpu or cuda, not cuda:1"):
        on_ray.require(Options("cuda:1"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'bench\[ray\]'"):
        on_ray.require(Options())


def test_an_address_where_nobody_listens() -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.raises(UserError, match=r"No Ray cluster answers at 127.0.0.1:9 "):
        list(on_ray.run([], Options(), lambda task: None, address="127.0.0.1:9"))
