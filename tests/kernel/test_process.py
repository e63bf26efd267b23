"""Process names, deaths and privileges, on real processes."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.errors import ProcdError
from procd.linux import process
from tests.kernel.forked import NOBODY, Say, forked, needs_root, outcome, wait_for_ever

PR_GET_PDEATHSIG = 2


def death_signal() -> int:
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        yield pid
    finally:
        os.waitpid(pid, 0)


def test_large_memory_that_is_free_goes_back_to_the_kernel() -> None:
    def kept() -> bool:
        process.give_large_memory_back()
        for _ in range(20):  # what grows, beside what stays
            grown = io.BytesIO()
            for _ in range(200):
                grown.write(bytes(100_000))
            small.append(bytes(1000))
            del grown
        return resident() < before + 4_000_000

    small: list[bytes] = []
    before = resident()
    assert outcome(kept) == "True"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def dead_pid() -> int:
    with zombie() as pid:
        return pid


# ---------------------------------------------------------------- parents and children


def test_an_orphan_becomes_the_child_of_the_subreaper() -> None:
    def subreaper() -> bool:
        process.become_subreaper()
        go_reader, go_writer = os.pipe()
        said_reader, said_writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.read(go_reader, 1)
                os.write(said_writer, str(os.getppid()).encode())
            os._exit(0)
        os.waitpid(middle, 0)
        os.write(go_writer, b"!")
        return int(os.read(said_reader, 20)) == os.getpid()

    assert outcome(subreaper) == "True"


def test_a_child_dies_with_its_killed_parent() -> None:
    def parent(say: Say) -> None:
        if os.fork() == 0:
            process.die_with_parent()
            wait_for_ever(say)
        signal.pause()

    with forked(parent) as child:
        assert child.line() == "ready"
        child.kill()
        assert child.line() == ""  # both have closed the pipe


@needs_root
def test_a_change_of_user_forgets_to_die_with_the_parent() -> None:
    def changed() -> tuple[int, int]:
        process.die_with_parent()
        before = death_signal()
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return before, death_signal()

    assert outcome(changed) == "(9, 0)"


@needs_root
def test_dying_with_the_parent_can_be_asked_for_after_the_change_of_user() -> None:
    def changed() -> int:
        process.drop_privileges("nobody", None)
        process.die_with_parent()
        return death_signal()

    assert outcome(changed) == "9"


# ---------------------------------------------------------------- names and lives


def test_the_kernel_shows_the_first_fifteen_bytes_of_a_name() -> None:
    def named() -> str:
        process.set_name("procd: worker 0 of many")
        return Path("/proc/self/comm").read_text()

    assert outcome(named) == repr("procd: worker 0\n")


@pytest.mark.parametrize("name", ["plain", "two words", "a) R 1 (b", ")))", "("])
def test_a_start_time_is_read_past_any_name(name: str) -> None:
    def body(say: Say) -> None:
        say("unnamed")
        signal.sigwait({signal.SIGUSR1})
        process.set_name(name)
        wait_for_ever(say)

    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with forked(body) as child:
            assert child.line() == "unnamed"
            before = process.start_time(child.pid)
            os.kill(child.pid, signal.SIGUSR1)
            assert child.line() == "ready"
            assert process.start_time(child.pid) == before
            assert before is not None
            assert before >= (process.start_time(os.getpid()) or 0) > 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_a_process_that_is_gone_has_no_start_time() -> None:
    assert process.start_time(dead_pid()) is None


def test_a_process_lives_under_its_own_start_time_only() -> None:
    start = process.start_time(os.getpid())
    assert start is not None
    assert process.is_alive(os.getpid(), start)
    assert process.is_alive(os.getpid(), None)
    assert not process.is_alive(os.getpid(), start + 1)
    assert not process.is_alive(dead_pid(), None)


def test_a_zombie_has_a_start_time_and_is_dead() -> None:
    with zombie() as pid:
        assert process.start_time(pid) is not None
        assert not process.is_alive(pid, process.start_time(pid))


# ---------------------------------------------------------------- privileges


@needs_root
def test_a_dropped_user_has_none_of_roots_ids_and_groups() -> None:
    def dropped() -> object:
        os.setgroups([0, 4])
        process.drop_privileges("nobody", None)
        return os.getresuid(), os.getresgid(), os.getgroups()

    assert outcome(dropped) == repr(((NOBODY,) * 3, (NOBODY,) * 3, [NOBODY]))


@needs_root
def test_a_dropped_user_cannot_become_root_again() -> None:
    def back() -> None:
        process.drop_privileges("nobody", None)
        os.setresuid(-1, 0, -1)

    assert outcome(back).startswith("PermissionError")


@needs_root
def test_user_and_group_may_be_numbers_without_an_account() -> None:
    def dropped() -> object:
        process.drop_privileges("54321", "54322")
        return os.getresuid(), os.getresgid(), os.getgroups()

    assert outcome(dropped) == repr(((54321,) * 3, (54322,) * 3, [54322]))


@needs_root
def test_a_group_alone_leaves_the_user() -> None:
    def dropped() -> object:
        process.drop_privileges(None, "nogroup")
        return os.getresuid(), os.getresgid(), os.getgroups()

    assert outcome(dropped) == repr(((0,) * 3, (NOBODY,) * 3, [NOBODY]))


def test_nothing_to_drop_needs_no_rights() -> None:
    process.drop_privileges(None, None)
    process.drop_privileges(str(os.geteuid()), str(os.getegid()))


@pytest.mark.parametrize(("user", "group"), [("no-such-one", None), (None, "no-such-one")])
def test_an_unknown_name_is_named(user: str | None, group: str | None) -> None:
    with pytest.raises(ProcdError, match="no-such-one"):
        process.drop_privileges(user, group)


@needs_root
def test_missing_rights_name_the_user_and_the_way_out() -> None:
    def dropped() -> None:
        process.drop_privileges("nobody", None)
        process.drop_privileges("root", None)

    said = outcome(dropped)
    assert said.startswith("ProcdError")
    assert "'root'" in said
    assert f"uid {NOBODY}" in said
    assert "start procd as root" in said


# ---------------------------------------------------------------- memory and files


def test_memory_is_resident_and_shared_out_bytes() -> None:
    rss, pss = process.memory(os.getpid())
    assert rss is not None
    assert pss is not None
    assert rss >= pss > 1_000_000


def test_memory_of_the_dead_is_unknown() -> None:
    assert process.memory(dead_pid()) == (None, None)
    with zombie() as pid:
        assert process.memory(pid) == (None, None)


@needs_root
def test_memory_of_another_user_is_its_resident_part() -> None:
    parent = os.getpid()

    def measured() -> object:
        process.drop_privileges("nobody", None)
        rss, pss = process.memory(parent)
        return rss is not None and rss > 1_000_000, pss

    assert outcome(measured) == "(True, None)"


def test_holders_of_a_file_are_those_who_have_it_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    stat = path.stat()
    assert process.holders(stat.st_dev, stat.st_ino) == []
    with path.open(), forked(wait_for_ever) as child:
        assert child.line() == "ready"
        assert process.holders(stat.st_dev, stat.st_ino) == sorted([os.getpid(), child.pid])


def test_a_child_keeps_the_fds_that_it_should_and_no_other() -> None:
    reader, writer = os.pipe()
    spare = os.dup(0)

    def body(_say: Say) -> None:
        process.close_fds_except({0, writer})
        still = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
        os.write(writer, repr(still).encode())

    try:
        with forked(body):
            # The listing itself takes the lowest free number.
            assert os.read(reader, 100).decode() == repr([0, 1, writer])
    finally:
        for fd in (reader, writer, spare):
            os.close(fd)
