"""Counting the cases of a machine, whoever started them."""

import multiprocessing
import os
from pathlib import Path

import pytest

from bench.machine.sharing import VARIABLE, listed, num_running

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "running"))
    return tmp_path / "running"


def keep(ready: "multiprocessing.Event", go_on: "multiprocessing.Event") -> None:
    with listed():
        ready.set()
        go_on.wait(60)


def test_others_count_while_they_run(folder: Path) -> None:
    ready, go_on = FORK.Event(), FORK.Event()
    assert num_running() == 1
    other = FORK.Process(target=keep, args=(ready, go_on))
    other.start()
    ready.wait(60)
    with listed():
        assert num_running() == 2
    assert num_running() == 2  # one that is not listed counts itself
    other.kill()
    other.join()
    assert num_running() == 1
    assert list(folder.iterdir()) == []  # the dead one's file is gone


def test_what_is_no_case_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("")
    (folder / f"{os.getppid()}-1").touch()  # its number now belongs to another process
    assert num_running() == 1
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written_counts_nobody(folder: Path) -> None:
    folder.write_text("")
    with listed():
        assert num_running() == 1
