"""Record locks, and the kernel's rules that the claim of a task rests on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.linux import recordlock
from tests.kernel.forked import Say, forked, outcome, wait_for_ever

BYTES = 100


@pytest.fixture(name="fd")
def file_to_lock(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "arena", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, BYTES)
    yield fd
    os.close(fd)


def holding(fd: int, offset: int, say: Say) -> None:
    assert recordlock.try_lock(fd, offset)
    wait_for_ever(say)


def test_a_byte_is_locked_by_one_process_at_a_time(fd: int) -> None:
    with forked(lambda say: holding(fd, 7, say)) as child:
        assert child.line() == "ready"
        assert not recordlock.try_lock(fd, 7)
        assert recordlock.try_lock(fd, 6)
        assert recordlock.try_lock(fd, 8)


def test_the_holder_is_named(fd: int) -> None:
    assert recordlock.holder(fd, 7) == 0
    with forked(lambda say: holding(fd, 7, say)) as child:
        assert child.line() == "ready"
        assert recordlock.holder(fd, 7) == child.pid
        assert recordlock.holder(fd, 8) == 0


def test_kill_9_frees_the_lock(fd: int) -> None:
    with forked(lambda say: holding(fd, 7, say)) as child:
        assert child.line() == "ready"
        child.kill()
        assert recordlock.holder(fd, 7) == 0
        assert recordlock.try_lock(fd, 7)


def test_an_unlocked_byte_is_free_for_others(fd: int) -> None:
    assert recordlock.try_lock(fd, 7)
    assert outcome(lambda: recordlock.try_lock(fd, 7)) == "False"
    recordlock.unlock(fd, 7)
    assert outcome(lambda: recordlock.try_lock(fd, 7)) == "True"
    recordlock.unlock(fd, 7)  # not held: nothing happens


def test_ones_own_lock_is_got_again_and_not_seen(fd: int) -> None:
    assert recordlock.try_lock(fd, 7)
    assert recordlock.try_lock(fd, 7)
    assert recordlock.holder(fd, 7) == 0


def test_a_fork_does_not_inherit_the_lock(fd: int) -> None:
    assert recordlock.try_lock(fd, 7)
    assert outcome(lambda: recordlock.holder(fd, 7)) == repr(os.getpid())


def test_closing_any_fd_of_the_file_drops_all_locks_of_the_process(fd: int) -> None:
    assert recordlock.try_lock(fd, 7)
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
    assert outcome(lambda: recordlock.try_lock(fd, 7)) == "True"


def test_a_child_that_closes_the_inherited_fd_drops_nothing_of_its_parent(fd: int) -> None:
    assert recordlock.try_lock(fd, 7)
    outcome(lambda: os.close(fd))
    assert outcome(lambda: recordlock.try_lock(fd, 7)) == "False"


def test_a_file_open_for_reading_cannot_be_locked_but_asked_about(fd: int) -> None:
    def ask() -> object:
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        holder = recordlock.holder(reading, 7)
        return holder, recordlock.try_lock(reading, 7)

    with forked(lambda say: holding(fd, 7, say)) as child:
        assert child.line() == "ready"
        assert outcome(ask).startswith("OSError(9")


def test_of_three_racers_one_gets_each_byte(fd: int) -> None:
    go, start = os.pipe()

    def racer(say: Say) -> None:
        os.close(start)
        os.read(go, 1)  # EOF: all three stand
        say(sum(recordlock.try_lock(fd, offset) for offset in range(BYTES)))
        wait_for_ever(say)  # keeps what it has until all have tried

    with forked(racer) as one, forked(racer) as two, forked(racer) as three:
        os.close(start)
        os.close(go)
        assert sum(int(child.line()) for child in (one, two, three)) == BYTES


def test_a_lock_may_lie_beyond_four_gigabytes(fd: int) -> None:
    with forked(lambda say: holding(fd, 2**33 + 1, say)) as child:
        assert child.line() == "ready"
        assert recordlock.holder(fd, 2**33 + 1) == child.pid
        assert recordlock.try_lock(fd, 1)
