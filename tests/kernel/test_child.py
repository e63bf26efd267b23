"""How processes are forked: whose signals, descriptors, parent and exit status they have."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from procd.master.loop import Loop
from procd.master.process import describe
from procd.spawn import child
from tests.kernel.forked import DEADLINE, Say, forked, outcome


def quiet() -> None:
    """No traceback of a wanted failure in the test's output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def status_of(body: Callable[[], int]) -> int:
    pid = child.fork(body, ())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leave(code: object) -> int:
    raise SystemExit(code)


def fail() -> int:
    quiet()
    raise ZeroDivisionError


# ---------------------------------------------------------------- exit statuses


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (int, 0),
        (lambda: 7, 7),
        (lambda: leave(5), 5),
        (lambda: leave("text"), 1),
        (fail, child.SOFTWARE_ERROR),
    ],
)
def test_a_child_leaves_with_the_status_of_its_body(body: Callable[[], int], status: int) -> None:
    assert status_of(body) == status


def test_a_plain_sys_exit_is_no_failure() -> None:
    assert status_of(lambda: leave(None)) == 0


def test_a_child_runs_no_exit_handler_of_its_parent(tmp_path: Path) -> None:
    """Those of pytest would run else; it leaves by os._exit."""

    def parent() -> object:
        import atexit

        atexit.register((tmp_path / "ran").touch)
        return status_of(lambda: leave(0))

    assert outcome(parent) == "0"
    assert not (tmp_path / "ran").exists()


def print_to(path: Path) -> None:
    """Have stdout be a file, with a buffer as in the background."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 1)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good


def test_what_a_child_prints_is_flushed_before_it_leaves(tmp_path: Path) -> None:
    def parent() -> object:
        print_to(tmp_path / "out")
        return status_of(lambda: sys.stdout.write("by the child\n") and 0)

    assert outcome(parent) == "0"
    assert (tmp_path / "out").read_text() == "by the child\n"


def test_what_the_parent_has_not_flushed_is_not_printed_again(tmp_path: Path) -> None:
    def parent() -> object:
        print_to(tmp_path / "out")
        sys.stdout.write("imported\n")
        codes = [status_of(int) for _ in range(3)]
        sys.stdout.flush()
        return codes

    assert outcome(parent) == "[0, 0, 0]"
    assert (tmp_path / "out").read_text() == "imported\n"


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (256, "exit status 1"), (9, "SIGKILL"), (60, "signal 60")],
)
def test_a_wait_status_is_told_in_words(status: int, words: str) -> None:
    assert describe(status) == words


# ---------------------------------------------------------------- signals


def wait_for_end(fd: int) -> int:
    return len(os.read(fd, 1))


def test_no_signal_to_a_child_reaches_its_parents_loop() -> None:
    """Sent the moment it is forked; without the mask it arrived in nearly every round."""

    def parent() -> object:
        loop = Loop()
        loop.catch({signal.SIGTERM, signal.SIGHUP})
        for _ in range(60):
            reader, writer = os.pipe()
            pid = child.fork(partial(wait_for_end, reader), {reader})
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGHUP)
            os.close(writer)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            os.close(reader)
        return loop.wait(0)

    assert outcome(parent) == "(set(), [])"


def test_a_child_ignores_what_the_whole_group_gets_but_not_over_exec() -> None:
    def body() -> int:
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(signum)
            assert signal.getsignal(signum) is not signal.SIG_IGN
        fields = dict(
            line.split(":\t")
            for line in Path("/proc/self/status").read_text().split("\n")
            if ":\t" in line
        )
        ignored = int(fields["SigIgn"], 16)
        blocked = int(fields["SigBlk"], 16)
        assert not ignored & 1 << signal.SIGINT - 1
        return int(blocked != 0)

    assert status_of(body) == 0


def test_handlers_of_the_parent_are_gone_in_the_child() -> None:
    def parent() -> object:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        dead = (signal.SIGALRM, signal.SIGCHLD)
        return status_of(lambda: sum(signal.getsignal(n) is not signal.SIG_DFL for n in dead))

    assert outcome(parent) == "0"


def test_signals_are_let_in_again_in_the_parent_also_after_a_failed_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def refused() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("procd.spawn.child.os_fork", refused)
    with pytest.raises(OSError, match="no more processes"):
        child.fork(lambda: 0, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


# ---------------------------------------------------------------- descriptors


def test_a_child_has_no_descriptors_but_those_it_should_keep() -> None:
    reader, writer = os.pipe()
    others = os.open(os.devnull, os.O_RDONLY)

    def body() -> int:
        listing = set(map(int, os.listdir("/proc/self/fd")))
        os.write(writer, repr(sorted(fd for fd in listing if is_open(fd))).encode())
        return 0

    pid = child.fork(body, {writer})
    os.waitpid(pid, 0)
    assert os.read(reader, 9999).decode() == repr(sorted({0, 1, 2, writer}))
    for fd in (reader, writer, others):
        os.close(fd)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- the parent's death


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_child_dies_with_its_parent_whatever_it_does(is_busy: bool) -> None:  # noqa: FBT001 - a case
    reader, writer = os.pipe()

    def body() -> int:
        os.write(writer, f"{os.getpid()}\n".encode())
        while is_busy:
            sum(range(10**9))
        while True:
            signal.pause()

    def parent(say: Say) -> None:
        child.fork(body, {writer})
        say("forked")
        signal.pause()

    with forked(parent) as master:
        assert master.line() == "forked"
        os.close(writer)
        pid = int(os.read(reader, 99))
        master.kill()
        is_dead = bool(select.select([reader], [], [], DEADLINE)[0])  # its end of the pipe is gone
        if not is_dead:
            os.kill(pid, signal.SIGKILL)
        assert is_dead
    os.close(reader)
