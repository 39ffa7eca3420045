"""Leases: one holder at a time, whatever the file system does; dead holders lose them."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.machine import lease
from bench.machine.lease import Owner, Taken, Watch, await_signs, hold, is_free, latest
from bench.records.case_folder import CaseFolder, Held

FORK = multiprocessing.get_context("fork")
SHORT_S = 0.6
NUM_PROCESSES, NUM_TAKEN = 8, 25


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "lease"


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.VARIABLE, str(SHORT_S))


def elsewhere(place: Path, **changes: object) -> Path:
    """Write the lease of a process on another host, that was last touched now."""
    mine = {"host": "other", "pid": os.getpid(), "machine": "m", "start": 1, "token": "t"}
    file = place.with_name("lease.3")
    file.write_text(f"{json.dumps(mine | changes)}\n")
    return file


def test_one_at_a_time(place: Path) -> None:
    with hold(place):
        with pytest.raises(Taken, match=f"process {os.getpid()} on {socket.gethostname()}"):
            hold(place).__enter__()
        assert not is_free(latest(place))
    assert is_free(latest(place))
    with hold(place):
        pass
    assert [file.name for file in place.parent.iterdir()] == ["lease.2"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, None], ids=str)
def test_locks_of_the_file_system_are_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def flock(file: object, operation: int) -> None:  # None: it excludes nobody
        if number is not None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(fcntl, "lockf", flock)
    case = CaseFolder(tmp_path / "case")
    with case.hold(), pytest.raises(Held, match="running on"), case.hold():
        pass
    with case.hold():
        assert case.alive.exists()


def take_often(place: Path, count: Path, die: bool) -> None:
    taken = 0
    while taken < NUM_TAKEN:
        with suppress(Taken), hold(place):
            number = int(count.read_text())
            time.sleep(0.0005)
            count.write_text(str(number + 1))  # lost if two are here at once
            taken += 1
            if die and taken == NUM_TAKEN:
                os._exit(0)


def test_many_processes_never_have_it_at_once(place: Path) -> None:
    count = place.with_name("count")
    count.write_text("0")
    processes = [
        FORK.Process(target=take_often, args=(place, count, number % 2 == 0))
        for number in range(NUM_PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert int(count.read_text()) == NUM_PROCESSES * NUM_TAKEN


@pytest.mark.usefixtures("_short")
def test_a_silent_host_loses_it(place: Path) -> None:
    file = elsewhere(place)
    with pytest.raises(Taken, match="on other"), hold(place):
        pass
    watch = Watch(place)
    assert not watch.is_free()
    time.sleep(SHORT_S / 2)
    os.utime(file)  # a sign of life
    await_signs([watch])
    assert watch.lives
    assert not watch.is_free()
    await_signs([other := Watch(place)])
    assert other.is_free()
    watch.look()
    time.sleep(SHORT_S * 1.2)
    with hold(place, watch):
        assert not file.exists()
        assert latest(place).number == 4


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("years", [-20, 20])
def test_clocks_of_hosts_do_not_matter(place: Path, years: int) -> None:
    shown = time.time() + years * 365 * 86400
    os.utime(elsewhere(place), (shown, shown))
    watch = Watch(place)
    assert not watch.is_free()
    time.sleep(SHORT_S * 1.2)
    assert watch.is_free()


@pytest.mark.usefixtures("_short")
def test_a_holder_gives_signs_of_life(place: Path) -> None:
    with hold(place):
        watch = Watch(place)
        time.sleep(2 * SHORT_S)
        assert not watch.is_free()


def test_the_end_of_a_process_is_seen_at_once(place: Path) -> None:
    process = FORK.Process(target=keep, args=(place,))
    process.start()
    wait_for(lambda: latest(place) is not None and latest(place).owner is not None)
    assert not is_free(latest(place))
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: is_free(latest(place)))  # though nobody has waited for it yet
    with hold(place):
        pass
    process.join()


def keep(place: Path) -> None:
    with hold(place):
        time.sleep(60)


def wait_for(condition: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({}, False),
        ({"start": 1}, True),  # another process has its number by now
        ({"pid": 2**22 + 1}, True),  # no process can have this number
        ({"pid": 2**22 + 1, "host": "other"}, False),
        ({"pid": 2**22 + 1, "machine": "another container"}, False),
    ],
)
def test_only_processes_of_this_machine_are_known(
    place: Path, changes: dict[str, object], ended: bool
) -> None:
    with hold(place):
        owner = latest(place).owner
    assert Owner(**vars(owner) | changes).has_ended is ended


@pytest.mark.usefixtures("_short")
def test_a_stopped_holder_notices_that_it_lost(tmp_path: Path) -> None:
    case = CaseFolder(tmp_path)
    with case.hold() as held:
        held.require()
        os.utime(elsewhere(case.lease))  # as if this process had slept
        with pytest.raises(Held, match="running on other .*because this one was silent"):
            held.require()
        beat = case.alive.read_text()
    assert case.alive.read_text() == beat  # it is theirs now
    assert latest(case.lease).owner.host == "other"
    assert not latest(case.lease).is_released


def test_an_old_view_of_the_folder_takes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(place)
    real, old = lease._numbers, iter([set(), set()])  # when it is watched, and looked at again
    monkeypatch.setattr(lease, "_numbers", lambda place: next(old, real(place)))
    with pytest.raises(Taken), hold(place):
        pass
    assert [file.name for file in place.parent.iterdir()] == ["lease.3"]


@pytest.mark.usefixtures("_short")
def test_a_patient_process_takes_what_a_dead_host_left(tmp_path: Path) -> None:
    case = CaseFolder(tmp_path)
    elsewhere(case.lease)
    with pytest.raises(Held), case.hold():
        pass
    with case.hold(case.watched()):
        assert case.holder().pid == os.getpid()


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("text", ["", "{", "[1]\n", '{"host": "x"}\n'])
def test_a_lease_that_cannot_be_read_is_taken_after_silence(place: Path, text: str) -> None:
    place.with_name("lease.1").write_text(text)
    watch = Watch(place)
    with pytest.raises(Taken, match="another process"), hold(place, watch):
        pass
    time.sleep(SHORT_S * 1.2)
    with hold(place, watch):
        pass


@pytest.mark.parametrize("given", ["0", "-1", "soon", "nan"])
def test_the_silence_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(lease.VARIABLE, given)
    message = f"BENCH_LEASE_S must be a number of seconds, not '{given}'"
    with pytest.raises(UserError, match=message):
        lease.lease_s()


def test_a_full_disk_leaves_no_lease(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lease, "asdict", full)
    with pytest.raises(OSError, match="No space"), hold(place):
        pass
    assert list(place.parent.iterdir()) == []


def test_a_folder_that_is_gone_stays_gone(tmp_path: Path) -> None:
    place = tmp_path / "case" / "lease"
    place.parent.mkdir()
    with hold(place):
        place.with_name("lease.1").unlink()
        place.parent.rmdir()
    assert not place.parent.exists()
