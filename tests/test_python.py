"""The Python API: the code in docs/python.md runs and does what the page says."""

import inspect
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY

import bench
from bench.cli import app
from bench.machine.files import read_json
from bench.suite.load import as_settings
from bench.suite.yaml_file import parse_value

DOCS = (ROOT / "docs" / "python.md").read_text()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "docs/python.md", "exec"), names)
    assert [result.status for result in names["results"]] == ["ok", "ok"]
    assert names["frame"]["evaluation"].isin(["train", "val", "mirrored"]).all()
    assert (tmp_path / "tables" / "tiny" / "tiny-summary.md").is_file()
    assert names["comparison"].num_compared == 1


def test_a_file_and_a_dict_make_the_same_case(
    write_suite: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = []
    options = {"device": "cpu", "out": tmp_path, "settings": {"recipe.epochs": 1}}
    [first] = bench.run(write_suite(), **options, on_result=shown.append)
    [again] = bench.run(parse_value(TINY), **options)
    assert (first.id, first.skipped, again.skipped) == (again.id, False, True)
    assert shown == [first]
    assert first.scores == again.scores
    assert Path(first.folder).parent.name == "tiny@recipe.epochs-1"
    [scored] = bench.evaluate(first.folder, device="cpu")
    assert scored.status == "ok"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", ["process", "in-process"])
def test_ctrl_c_saves_and_the_same_call_continues(
    write_suite: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    text = TINY.replace("epochs: 2", "epochs: 300").replace("engine: in-process\n", "")
    options = {"device": "cpu", "out": tmp_path, "engine": engine}
    suite = write_suite(text)

    def interrupt() -> None:
        while not any("step" in (read_json(file) or {}) for file in tmp_path.rglob("alive.json")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        bench.run(suite, **options)
    thread.join()
    assert list(tmp_path.rglob("last.pt"))
    assert not list(tmp_path.rglob("record.json"))
    folder = next(tmp_path.rglob("last.pt")).parent
    interrupted = torch.load(folder / "last.pt", weights_only=True)["step"]
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        bench.run(suite, **options)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] >= interrupted
    assert "resumed at step" in (folder / "log.txt").read_text()


def test_settings_are_written_as_a_user_writes_them() -> None:
    values = {"a": "fp32", "b": [0, 1], "c": "1", "d": True, "e": None, "f": {"x": "y"}, "g": ""}
    values["h"] = {"model": "😀.pth"}
    assert as_settings(values) == [
        *(
            "a=fp32",
            "b=[0,1]",
            'c="1"',
            "d=true",
            "e=null",
            'f={"x":"y"}',
            'g=""',
            'h={"model":"😀.pth"}',
        ),
    ]
    for text, value in zip(as_settings(values), values.values(), strict=True):
        assert parse_value(text.partition("=")[2]) == value


def test_a_failed_case_is_a_result(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    settings = {"models.enet.arch": "planted:nan"}
    [result] = bench.run(write_suite(), device="cpu", out=tmp_path, settings=settings)
    assert result.status == "failed"
    assert "training loss is" in str(result.reason)
    assert result.scores is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bench.run("quik"), "Did you mean 'quick'"),
        (lambda: bench.run({"name": "x"}), r"suite: The key 'datasets' is required"),
        (lambda: bench.run({"name": "x", "modells": {}}), r"suite: modells: Unknown key 'modells'"),
        (lambda: bench.run("quick", pattern="nothing"), "No case matches 'nothing'"),
        (lambda: bench.run("quick", settings={"recipe.epochs": object()}), "plain values"),
        (lambda: bench.run("quick", roots={"camvid": "x"}), "Unknown dataset 'camvid'"),
        (lambda: bench.report("nowhere"), "neither a suite"),
        (lambda: bench.compare("nowhere"), "does not exist"),
        (lambda: bench.load("nowhere"), "nowhere"),
        (lambda: bench.evaluate("quick", checkpoint="w.pt"), "belongs to one model"),
        (lambda: bench.evaluate("suites", pattern="*"), "as its suite says"),
        (lambda: bench.run("quick", workers=0), "workers must be at least 1, not 0"),
        (
            lambda: bench.run("quick", workers=999, engine="process", device="cpu"),
            "--workers 999: this machine has",
        ),
        (lambda: bench.run("quick", timeout_s=0), "more than 0 s"),
        (lambda: bench.run("quick", engine="in_process"), "Unknown engine 'in_process'"),
        (lambda: bench.run("quick", cache="dsk"), "Unknown cache 'dsk'. Did you mean 'disk'"),
        (lambda: bench.run("quick", loader_workers=-1), "0 or more, not -1"),
        (lambda: bench.run("quick", settings="recipe.epochs=1"), "settings is a mapping"),
        (lambda: bench.run("quick", roots=["camvid=x"]), "roots is a mapping"),
        (lambda: bench.report("results/published/camvid_small", by="foo"), "Unknown way to group"),
        (lambda: bench.report("results/published/camvid_small", prefer="foo"), "preference 'foo'"),
        (lambda: bench.run("quick", device="gpu"), "No device 'gpu'"),
        (lambda: bench.run(None), "suite is a file, .*, not None"),
        (lambda: bench.run(["quick"]), "suite is a file"),
        (lambda: bench.evaluate(3), "suite is a file"),
        (lambda: bench.run("quick", pattern=["*"]), "pattern is a glob"),
        (lambda: bench.run("quick", device=0), "device is a name, such as .*, not 0"),
        (lambda: bench.run("quick", workers="2"), "workers is a whole number, not '2'"),
        (lambda: bench.run("quick", loader_workers=1.5), "loader_workers is a whole number"),
        (lambda: bench.run("quick", timeout_s="9"), "timeout_s is a number of seconds"),
        (lambda: bench.run("quick", on_result=3), "on_result is a function of one result"),
        (lambda: bench.run("quick", out=None), "out is a path, not None"),
        (lambda: bench.run("quick", roots={"tiny": None}), "roots.'tiny'. is a path, not None"),
        (lambda: bench.evaluate("quick", checkpoint=["w.pt"]), "checkpoint is a path"),
        (lambda: bench.report(None), "a target is a path, not None"),
        (lambda: bench.report(results=None), "results is a path, not None"),
        (lambda: bench.report("quick", formats="md"), "formats is a list, such as .*, not 'md'"),
        (lambda: bench.report("quick", tables="summary"), "tables is a list"),
        (lambda: bench.compare(None), "base is a path, not None"),
        (lambda: bench.compare("suites", ["suites"]), "new is a path"),
        (lambda: bench.load(["results"]), "a folder is a path"),
    ],
)
def test_a_mistake_is_a_user_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(bench.UserError, match=message):
        call()


def test_sub_packages_of_the_same_names_stay_packages() -> None:
    import bench.compare.finding
    import bench.report.table

    assert bench.report.table.EMPTY
    assert callable(bench.report)
    assert callable(bench.compare)
    assert "sort" in inspect.signature(bench.report).parameters
    assert "Markdown" in str(bench.report.__doc__)


def test_it_has_what_the_command_has() -> None:
    ours = inspect.signature(bench.run).parameters.keys()
    theirs = inspect.signature(app.run).parameters.keys()
    assert ours - theirs == {"suite", "roots", "timeout_s", "on_result"}
    assert theirs - ours == {
        *("suites", "limit", "root", "dry_run", "max_time", "timeout", "json_lines"),
    }
