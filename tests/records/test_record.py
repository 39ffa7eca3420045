import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from fixtures import SUITE

from bench.errors import UserError
from bench.machine.environment import environment
from bench.machine.files import read_json, write_json, write_text
from bench.records.case_folder import CaseFolder, Held, results_folder
from bench.records.record import Resolved, read_record, write_resolved
from bench.suite.expand import expand
from bench.suite.suite import Suite


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk is full")))
        with pytest.raises(UserError, match=r"Cannot write .*a\.json: disk is full"):
            write_json(file, {"a": 2})
    assert read_json(file) == {"a": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))


def hold(folder: Path, held: "multiprocessing.Queue[str]", go_on: "multiprocessing.Event") -> None:
    case = CaseFolder(folder)
    with case.hold():
        case.beat(epoch=1)
        held.put("held")
        go_on.wait()


def test_a_case_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, go_on = context.Queue(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, go_on))
    process.start()
    held.get(timeout=60)
    with pytest.raises(Held, match=rf"\(process {process.pid}\)"), CaseFolder(tmp_path).hold():
        pass
    process.kill()
    process.join()
    with CaseFolder(tmp_path).hold():
        pass
    assert not CaseFolder(tmp_path).alive.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    case = CaseFolder(tmp_path / "file" / "case")
    expected = pytest.raises(UserError, match=r"Cannot write to .*file/case: Not a directory")
    with expected, case.hold():
        pass


def test_reading_records(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_text(tmp_path / "record.json", '{"id": "half')
    with pytest.raises(UserError, match=r"record\.json is not a record"):
        read_record(tmp_path)


def test_the_environment_names_versions_and_commit() -> None:
    facts = environment()
    assert facts["packages"]["torch"]
    assert facts["threads"] >= 1
    assert facts["cpu"]
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40


def test_folders_of_similar_settings_are_kept_apart(tmp_path: Path) -> None:
    suite = Suite.model_validate(SUITE | {"reported": []})

    def folder(setting: str) -> Path:
        return results_folder(tmp_path, suite, [setting])

    def run(setting: str) -> Path:
        cases = tuple(expand(suite))
        place = folder(setting)
        write_resolved(place, Resolved(suite=suite, settings=(setting,), cases=cases))
        return place

    one = run("models.A.weights=a/x.pth")
    other = run("models.A.weights=a-x.pth")
    assert one.name == "paper@models.A.weights-a-x.pth"  # as before
    assert other.name.startswith(f"{one.name}-")
    assert folder("models.A.weights=a/x.pth") == one
    assert folder("models.A.weights=a-x.pth") == other
    shutil.rmtree(one)
    assert folder("models.A.weights=a-x.pth") == other  # its results are still found
