"""The arena lease: while one process of a service lives, no other master touches its arena."""

from __future__ import annotations

import fcntl
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from procd.errors import AlreadyRunning, StartFailed
from procd.linux import process
from procd.master import lease as room
from procd.master.lease import Lease
from tests.kernel.forked import Say, forked, outcome, wait_for_ever


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LINGER_SECONDS", 0.1)


@pytest.fixture(name="path")
def path_of_lease(tmp_path: Path) -> Path:
    return tmp_path / "lease"


def holding(path: Path, then: Callable[[], object] = lambda: None) -> Callable[[Say], None]:
    """A master that takes the lease, does something more and stands."""

    def body(say: Say) -> None:
        Lease(path).acquire()
        then()
        wait_for_ever(say)

    return body


def test_it_names_its_master_and_is_private(path: Path) -> None:
    lease = Lease(path)
    lease.acquire()
    assert path.read_text() == f"{os.getpid()} {process.start_time(os.getpid())} 0 0\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(lease.fd)
    lease.release()
    assert not path.exists()
    assert lease.fd == -1


def test_the_next_master_learns_which_queue_a_killed_one_left(path: Path) -> None:
    def take_and_note() -> None:
        lease = Lease(path)
        lease.acquire()
        lease.note_queue(-5, 77)
        lease.note_queue(-5, 8)

    outcome(take_and_note)
    lease = Lease(path)
    for _ in range(2):  # also when that one is killed before it has made its own
        lease.acquire()
        assert lease.queue == (-5, 8)
        os.close(lease.fd)
    lease.acquire()
    lease.release()
    lease = Lease(path)
    lease.acquire()
    assert lease.queue == (0, 0)
    lease.release()


def test_it_can_be_taken_again_after_a_release(path: Path) -> None:
    for _ in range(3):
        lease = Lease(path)
        lease.acquire()
        lease.release()


def test_a_living_master_is_left_alone(path: Path) -> None:
    with forked(holding(path)) as child:
        assert child.line() == "ready"
        with pytest.raises(AlreadyRunning, match=f"pid {child.pid} runs with this state_dir"):
            Lease(path).acquire()
        assert process.is_alive(child.pid, None)


def test_a_dead_masters_lease_is_free_at_once(path: Path) -> None:
    with forked(holding(path)) as child:
        assert child.line() == "ready"
        child.kill()
    begin = time.monotonic()
    lease = Lease(path)
    lease.acquire()
    assert time.monotonic() - begin < 0.1
    lease.release()


def test_whoever_is_left_of_a_dead_master_is_ended_after_a_while(path: Path) -> None:
    """A process of its holds the inherited descriptor, and the flock with it."""
    reader, writer = os.pipe()

    def leave_somebody() -> None:
        if os.fork() == 0:
            os.write(writer, f"{os.getpid()}\n".encode())
            time.sleep(600)
            os._exit(0)

    with forked(holding(path, leave_somebody)) as child:
        assert child.line() == "ready"
        child.kill()
    left = int(os.read(reader, 99))
    os.close(reader)
    os.close(writer)
    begin = time.monotonic()
    lease = Lease(path)
    lease.acquire()
    assert time.monotonic() - begin >= 0.1
    assert not process.is_alive(left, None)
    lease.release()


def test_two_who_start_at_once_do_not_both_have_it(path: Path) -> None:
    go, start = os.pipe()

    def body(say: Say) -> None:
        os.close(start)
        os.read(go, 1)
        try:
            Lease(path).acquire()
        except AlreadyRunning:
            say("no")
        else:
            wait_for_ever(say)

    with forked(body) as one, forked(body) as two, forked(body) as three:
        os.close(start)
        os.close(go)
        said = sorted(child.line() for child in (one, two, three))
    assert said == ["no", "no", "ready"]


def test_a_file_that_its_last_owner_unlinks_meanwhile_is_not_taken_for_the_lease(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one has opened it already, and would hold a lock that nobody else ever meets."""
    first, second = Lease(path), Lease(path)
    first.acquire()
    real = fcntl.flock

    def after_the_release(fd: int, operation: int) -> None:
        if first.fd >= 0:
            first.release()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_release)
    second.acquire()
    assert path.stat().st_ino == os.fstat(second.fd).st_ino
    assert outcome(Lease(path).acquire).startswith("AlreadyRunning")
    second.release()


@pytest.mark.parametrize("text", ["", "x", "1", "1 2 x y", "999999999 1", "PID 1", "\xe9 \xe9"])
def test_a_lease_file_left_behind_without_its_lock_is_taken(path: Path, text: str) -> None:
    path.write_text(text.replace("PID", str(os.getpid())), encoding="latin-1")
    lease = Lease(path)
    lease.acquire()
    lease.release()


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="cannot open"):
        Lease(path).acquire()


def test_no_descriptor_is_left_open_by_those_who_do_not_get_it(path: Path) -> None:
    with forked(holding(path)) as child:
        assert child.line() == "ready"
        gc.collect()
        before = os.listdir("/proc/self/fd")
        with pytest.raises(AlreadyRunning):
            Lease(path).acquire()
        assert os.listdir("/proc/self/fd") == before
