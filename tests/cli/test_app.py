"""The commands as a user types them: output, exit codes, and one line for every mistake."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Forked, bench, bench_process
from conftest import TINY
from fixtures import make_camvid, make_results
from PIL import Image

from bench import load
from bench.cli.options import all_settings
from bench.errors import Exit
from bench.machine.files import CannotWrite
from bench.records.case_folder import CaseFolder

CAMVID = """
name: cam
datasets: {camvid: {}}
models: {enet: {arch: custom/enet}}
recipe: {epochs: 1, batch_size: 2}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny suite and its results."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    done = bench_process("run", folder / "tiny.yaml", "--out", folder / "out", "--device", "cpu")
    assert "[1/1] shapes__enet__default__s0: ok" in done.stdout
    assert "(majority class: background)" in done.stdout
    assert f"Records: {folder}/out/tiny" in done.stdout
    return folder


def test_help_imports_nothing_heavy() -> None:
    assert "Commands:" in bench_process("--help").stdout
    assert "--dry-run" in bench_process("run", "--help").stdout


def test_any_folder_will_do(tmp_path: Path) -> None:
    """The packages are found wherever they are installed, not only in the working directory."""
    command = [sys.executable, "-m", "bench", "list", "models"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "custom/enet" in done.stdout


def test_finished_cases_are_skipped(finished: Path) -> None:
    done = bench("run", finished / "tiny.yaml", "--out", finished / "out")
    assert "1 case, 1 done, 0 to run" in done.stdout


def test_json_is_one_line_a_case(finished: Path) -> None:
    done = bench("run", finished / "tiny.yaml", "--out", finished / "out", "--json")
    [line] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["status"], line["skipped"]) == ("ok", True)
    assert 0 <= line["scores"]["val"]["miou"] <= 1


def test_dry_run_trains_nothing(finished: Path, tmp_path: Path) -> None:
    done = bench("run", finished / "tiny.yaml", "--out", tmp_path / "o", "--dry-run")
    assert "to do" in done.stdout
    assert "0.36" in done.stdout
    assert "GB of disk" in done.stdout
    assert not (tmp_path / "o").exists()


def test_report(finished: Path, tmp_path: Path) -> None:
    for target in (finished / "tiny.yaml", finished / "out" / "tiny", None):
        args = [target] if target else []
        done = bench("report", *args, "--results", finished / "out", "--out", tmp_path / "r")
        assert "| enet" in done.stdout
    suffixes = {f.suffix for f in (tmp_path / "r" / "tiny").iterdir()}
    assert suffixes == {".md", ".tex", ".csv", ".bib"}
    done = bench("report", "--results", finished / "out", "--format", "pfd", code=2)
    assert "Unknown format 'pfd'. Did you mean 'pdf'" in done.stderr


def test_report_as_it_is_asked_for(finished: Path, tmp_path: Path) -> None:
    asked = "--table summary,own --format html,json,png --by recipe --sort miou --no-reported"
    done = bench("report", "--results", finished / "out", *asked.split(), "--out", tmp_path, code=2)
    assert "Unknown table 'own'" in done.stderr
    asked = asked.replace(",own", "")
    bench("report", "--results", finished / "out", *asked.split(), "--out", tmp_path)
    names = sorted(file.name for file in (tmp_path / "tiny").iterdir())
    assert names == ["curves-enet.png", "report.html", "tiny-summary.json"]
    history = next((finished / "out").rglob("history.csv")).read_text()
    assert ",train_miou," in history.splitlines()[0]
    done = bench("report", "--results", finished / "out", "--by", "modell", code=2)
    assert "modell" in done.stderr


def test_report_counts_what_is_not_of_the_suite(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    suite, out = tmp_path / "copy" / "tiny.yaml", tmp_path / "copy" / "out"
    suite.write_text(TINY.replace("epochs: 2", "epochs: 1"))
    bench("run", suite, "--out", out, "--device", "cpu")
    assert (
        "also has 1 record from an earlier version"
        in bench("report", suite, "--results", out).stdout
    )
    gone = bench("rm", "--stale", "--dry-run", "--results", out).stdout
    assert gone.count("would remove") == 1
    assert bench("rm", "--stale", "--results", out).stdout.count("removed") == 1
    assert "other records" not in bench("report", out / "tiny").stdout
    assert "No case matched" in bench("rm", "--stale", "--results", out, code=3).stderr
    assert "Say which cases" in bench("rm", "--results", out, code=2).stderr


def test_a_running_case_is_not_removed(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    [folder] = (tmp_path / "out" / "tiny").glob("shapes__*")
    with CaseFolder(folder).hold():
        for flags in ([], ["--dry-run"]):
            done = bench("rm", "*", "--results", tmp_path / "out", *flags)
            assert f"kept {folder}: it is running" in done.stderr
            assert "remove" not in done.stdout
    assert (folder / "record.json").exists()


def test_evaluate_adds_an_evaluation(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    suite, out = tmp_path / "copy" / "tiny.yaml", tmp_path / "copy" / "out"
    suite.write_text(TINY + "evaluations: {val: {split: val}, other: {split: test}}\n")
    assert "not yet scored: other" in bench("run", suite, "--out", out).stdout
    done = bench("evaluate", suite, "--out", out, "--device", "cpu")
    assert "other mIoU" in done.stdout
    [folder] = (out / "tiny").glob("shapes__*")
    assert "other mIoU" in bench("evaluate", folder, "--device", "cpu").stdout


def test_evaluate_a_users_own_checkpoint(finished: Path, tmp_path: Path) -> None:
    [weights] = (finished / "out" / "tiny").glob("*/weights.safetensors")
    done = bench(
        "evaluate",
        finished / "tiny.yaml",
        "--checkpoint",
        weights,
        "--out",
        tmp_path,
        "--device",
        "cpu",
    )
    assert "enet__default__s0: ok" in done.stdout
    [own] = tmp_path.glob("tiny@*/*/eval/val.json")
    [trained] = (finished / "out" / "tiny").glob("*/eval/val.json")
    assert json.loads(own.read_text())["scores"] == json.loads(trained.read_text())["scores"]


def test_show(finished: Path) -> None:
    done = bench("show", "shapes__enet", "--results", finished / "out")
    assert '"num_params": 363466' in done.stdout
    assert "python -m bench run" in done.stdout
    assert "No case matches 'x'" in bench("show", "x", "--results", finished / "out", code=2).stderr


@pytest.mark.parametrize(
    ("left", "said", "status", "warned"),
    [
        ("lease.2", "it is running on far (process 7)", "held: running on far", "still running"),
        (
            *("last.pt", "its training was interrupted; bench run continues it"),
            *("failed: its training was interrupted; bench run", "did not finish"),
        ),
        (
            *("log.txt", "it has not been trained; bench run trains it"),
            *("failed: it has not been trained; bench run", "did not finish"),
        ),
    ],
)
def test_an_unfinished_case_is_called_so(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: str,
    said: str,
    status: str,
    warned: str,
) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    [folder] = (tmp_path / "out" / "tiny").glob("shapes__*")
    (folder / "record.json").unlink()
    owner = {"host": "far", "pid": 7, "machine": "m", "start": 1, "token": "t"}
    (folder / left).write_text(json.dumps(owner) + "\n")
    monkeypatch.setattr("bench.records.case_folder.await_signs", lambda watches: None)
    for command in (["show", folder], ["evaluate", folder]):
        assert f"has no record: {said}." in bench(*command, code=2).stderr
    done = bench("show", "shapes__enet", "--results", tmp_path / "out", code=2)
    assert said in done.stderr
    words = ("evaluate", finished / "tiny.yaml", "--out", tmp_path / "out")
    assert status in bench(*words, code=5 if left == "lease.2" else 1).stdout
    with (
        pytest.warns(UserWarning, match=f"1 case in .* {warned}"),
        pytest.warns(UserWarning, match="There is no record in"),
    ):
        assert load(tmp_path / "out").empty


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("models", "custom/enet"),
        ("encoders", "tu-resnet50"),
        ("datasets", "voc2012"),
        ("suites", "quick  "),
    ],
)
def test_list(kind: str, name: str) -> None:
    assert name in bench("list", kind).stdout


def test_list_of_nothing() -> None:
    done = bench("list", "models", "--filter", "*nothing*", code=Exit.NOTHING_MATCHED)
    assert "No name in models matches '*nothing*'" in done.stderr
    assert "Did you mean 'models'" in bench("list", "model", code=2).stderr


def test_validate(finished: Path) -> None:
    assert "valid, 1 case" in bench("validate", finished / "tiny.yaml").stdout
    deep = bench("validate", finished / "tiny.yaml", "--deep", "--device", "cpu").stdout
    assert "shapes__enet__default__s0: loss" in deep


def test_schema_and_env() -> None:
    assert json.loads(bench("schema").stdout)["title"] == "Suite"
    assert json.loads(bench("env", "--json").stdout)["packages"]["torch"]


def test_nothing_matched(finished: Path) -> None:
    done = bench("run", finished / "tiny.yaml", "--filter", "*unet*", code=Exit.NOTHING_MATCHED)
    assert "No case matches '*unet*'" in done.stderr


def test_max_time_stops_after_saving_and_goes_on(finished: Path, tmp_path: Path) -> None:
    args = ["run", finished / "tiny.yaml", "--out", tmp_path, "--device", "cpu"]
    done = bench(*args, "--max-time", "0.000001s", code=Exit.INTERRUPTED)
    assert "interrupted: before it started" in done.stdout
    assert "ok" in bench(*args).stdout
    assert "--max-time takes" in bench(*args, "--max-time", "soon", code=Exit.USAGE).stderr


def test_two_runs_of_one_suite(tmp_path: Path) -> None:
    """The second one reports who is running the case, and nothing runs twice."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TINY.replace("epochs: 2", "epochs: 20"))
    args = ["run", str(suite), "--out", str(tmp_path / "o"), "--device", "cpu"]
    first = Forked(*args, out=tmp_path / "first.txt")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("o/tiny/*/alive.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    done = bench(*args, code=Exit.RUNNING_ELSEWHERE)
    assert re.search(rf"held: running on .* \(process {first.process.pid}\)", done.stdout)
    assert first.wait() == 0
    assert "[1/1] shapes__enet__default__s0: ok" in first.text
    assert "1 done" in bench(*args).stdout


def test_layers_are_printed_as_reports_are() -> None:
    done = bench("list", "models", "--layers", "simplified_unet", "--format", "csv")
    assert done.stdout.splitlines()[1] == "encoder.0,conv,3,64,3x3,1,1,1,ReLU"
    done = bench("list", "models", "--layers", "unet", "--set", "bias=true")
    assert "31,044,821 parameters" in done.stdout


# ---- common mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TINY.replace("epochs", "epoch"), "suite.yaml:9: recipe.epoch: Unknown key 'epoch'"),
        (TINY + "name: twice\n", "suite.yaml:14: name: Duplicate key 'name'"),
        (TINY.replace("custom/enet", "custom/ennet"), "Did you mean 'custom/enet'"),
        ("", "a suite is keys and values"),
        ("a: [", "invalid YAML: expected the node content"),
        (
            TINY.replace("batch_size: 4", "batch_size: 99"),
            "16 training images cannot fill a batch",
        ),
        (TINY.replace("custom/enet", "custom/enet, x: 1"), "suite.yaml:7: models.enet: custom/en"),
        (CAMVID, "has no folder. Give --root camvid=PATH"),
    ],
)
def test_bad_suites(write_suite: Callable[..., Path], tmp_path: Path, text: str, message: str):
    done = bench("run", write_suite(text), "--out", tmp_path / "o", code=2, BENCH_DATA="")
    assert message in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "gone.yaml"], "No suite file gone.yaml"),
        (["run", "suites/quick.yaml", "--set", "x"], "--set takes NAME=VALUE"),
        (["run", "suites/quick.yaml", "--set", "a.b=1"], "Unknown key 'a'"),
        (["run", "suites/quick.yaml", "--root", "x"], "--root takes NAME=VALUE"),
        (["run", "suites/quick.yaml", "--limit", "0"], "limit"),
        (["run", "suites/quick.yaml", "--limit", "many"], "limit"),
        (["run", "suites/quick.yaml", "--device", "gpu"], "No device 'gpu'"),
        (["report", "nowhere"], "neither a suite (.yaml) nor a folder with results"),
        (["report", "--results", "nowhere"], "No results in nowhere"),
        (["evaluate", "tests"], "is not the folder of a case"),
        (["profile", "gone.yaml"], "No suite file gone.yaml"),
        (["profile", "suites/complexity.yaml", "--device", "gpu"], "No device 'gpu'"),
        (["selftest", "--device", "gpu"], "No device 'gpu'"),
        (["list", "models", "--layers", "unett"], "Did you mean 'custom/unet'"),
        (
            ["list", "models", "--layers", "unet", "--set", "x=1"],
            "custom/unet: Unknown option 'x'. Known: bias.",
        ),
        (["list", "models", "--layers", "unet", "--set", "x"], "--set takes NAME=VALUE"),
        (["list", "models", "--layers", "unet", "--format", "mdd"], "Did you mean 'md'"),
        (["list", "datasets", "--layers", "unet"], "--layers goes with models"),
        (["list", "models", "--layers", "unet", "--filter", "u*"], "not both"),
        (["report", "results/published/camvid_small", "--sort", "iou/raod"], "Did you mean 'iou/"),
        (["run", "suites"], "suites is a folder; name a suite file"),
        (["run", "quick", "--set", "include=x.yaml"], "--set cannot change include"),
        (["data", "show", "ci"], "several datasets; name one, with --suite ci"),
        (["data", "check", "ci", "--split", "vall"], "Did you mean 'val'"),
    ],
)
def test_bad_arguments(args: list[str], message: str) -> None:
    done = bench(*args, code=Exit.USAGE)
    assert message in done.stderr


def truncate(root: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
    file = root / "train" / "a1.png"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:3000])
    return "Cannot decode"


def wrong_size(root: Path) -> str:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(root / "trainannot" / "a1.png")
    return "a1.png is 9x8 but its image"


def wrong_label(root: Path) -> str:
    Image.fromarray(np.full((8, 10), 77, np.uint8)).save(root / "trainannot" / "a1.png")
    return "not allowed: 77 (80 pixels). Allowed: 0..11"


@pytest.mark.parametrize("plant", [truncate, wrong_size, wrong_label])
def test_bad_files_fail_their_case_alone(
    write_suite: Callable[..., Path], tmp_path: Path, plant: Callable[[Path], str]
) -> None:
    root = make_camvid(tmp_path / "camvid")
    message = plant(root)
    text = CAMVID.replace(
        "datasets: {camvid: {}}",
        "engine: in-process\ndatasets: {camvid: {partial: true}, shapes: {num_train: 4}}",
    )
    text = text.replace("batch_size: 2", "batch_size: 2, size: [32, 32]")
    args = ["run", write_suite(text), "--root", f"camvid={root}", "--out", tmp_path / "o"]
    done = bench(*args, "--device", "cpu", code=Exit.NEGATIVE)
    assert message in done.stdout
    assert "a1.png" in done.stdout
    assert "shapes__enet__default__s0: ok" in done.stdout
    assert "Failed: " in bench("report", tmp_path / "o" / "cam").stdout
    assert len(list((tmp_path / "o" / "cam").glob("*/record.json"))) == 2


def test_changed_settings_get_their_own_folder(finished: Path) -> None:
    args = ["--out", finished / "apart", "--set", "recipe.epochs=0", "--limit", "4"]
    done = bench("run", finished / "tiny.yaml", *args, "--device", "cpu")
    folder = finished / "apart" / "tiny@limit-4,recipe.epochs-0"
    assert f"Records: {folder}" in done.stdout
    [case] = folder.glob("shapes__*")
    shown = bench("show", case).stdout
    assert "--set recipe.epochs=0" in shown
    assert "--set limit=4" in shown


def test_a_device_that_is_not_there_records_nothing(finished: Path, tmp_path: Path) -> None:
    done = bench("run", finished / "tiny.yaml", "--out", tmp_path, "--device", "cuda:7", code=2)
    assert "No device 'cuda:7'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_is_not_there(finished: Path, tmp_path: Path) -> None:
    args = ["--device", "cpu", "--set", "recipe.precision=fp16", "--out", tmp_path]
    done = bench("run", finished / "tiny.yaml", *args, code=2)
    assert "Precision 'fp16' is not supported on cpu" in done.stderr


def test_bad_weights(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    for name, message in (("bad.pth", "Cannot read weights"), ("gone.pth", "No weight file")):
        (tmp_path / "bad.pth").write_bytes(b"nothing")
        text = TINY.replace("custom/enet", f"custom/enet, weights: {name}")
        done = bench("run", write_suite(text), "--out", tmp_path / "o", code=Exit.USAGE)
        assert message in done.stderr
        assert not (tmp_path / "o").exists()


def test_an_unwritable_results_folder(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench("run", finished / "tiny.yaml", "--out", tmp_path / "file", code=Exit.USAGE)
    assert "Cannot write" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("flag", ["--timeout", "--max-time"])
@pytest.mark.parametrize("given", ["0", "-3", "inf", "8d", "soon"])
def test_times_that_are_none(write_suite: Callable[..., Path], flag: str, given: str) -> None:
    from bench.cli.app import main

    with pytest.raises(SystemExit) as left:
        main(["run", str(write_suite()), flag, given])
    assert left.value.code == Exit.USAGE


def test_a_full_disk_is_no_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise CannotWrite("Cannot write x.md: No space left on device.")

    make_results(tmp_path)
    monkeypatch.setattr("bench.report.write.write_text", full)
    assert "No space left" in bench("report", tmp_path / "paper", code=1).stderr


def test_the_locale_of_a_bare_machine(tmp_path: Path) -> None:
    make_results(tmp_path)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    printed = bench_process("report", tmp_path / "paper", "--out", tmp_path / "r", **plain).stdout
    assert "55.00 \\xb1 7.07" in printed
    assert "±" in (tmp_path / "r" / "paper" / "paper-summary.md").read_text(encoding="utf-8")
    assert "valid, " in bench_process("validate", "quick", **plain).stdout


def test_a_part_of_a_name_is_no_filter() -> None:
    printed = bench("run", "quick", "--filter", "fcn", code=3).stderr
    assert "No case matches 'fcn'. A filter covers the whole name; try '*fcn*'." in printed


def test_where_results_cannot_be_written() -> None:
    printed = bench("run", "quick", "--out", "/proc/x", code=2).stderr
    assert "Cannot write results to /proc/x: " in printed


def test_the_last_setting_of_a_key_counts() -> None:
    assert all_settings(["recipe.epochs=1", "a=2", "recipe.epochs=3"], "4") == [
        "recipe.epochs=3",
        "a=2",
        "limit=4",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "tiny.yaml"), "tiny.yaml is a suite; name a case. bench report tiny.yaml shows"),
        (("rm", "tiny.yaml"), "tiny.yaml is a suite; give a glob on the names of its cases"),
        (("evaluate", "tiny.yaml", "--checkpoint", "out"), "Checkpoint out is a folder; give a"),
        (("run", "tiny.yaml", "--out", "/proc"), "Cannot write results to /proc: "),
        (("run", "tiny"), "No suite file tiny. Did you mean tiny.yaml?"),
        (("run", "tiny.yml"), "No suite file tiny.yml. Did you mean tiny.yaml?"),
    ],
)
def test_the_wrong_thing_in_the_right_place(
    finished: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in bench(*words, code=2, cwd=finished).stderr
