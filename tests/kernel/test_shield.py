"""An import may leave the process in no other state than it was; what it changed is named."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.spawn.shield import shielded


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Whatever a case does, the test process goes on as before."""
    folder, handler, path = os.getcwd(), signal.getsignal(signal.SIGUSR1), list(sys.path)
    yield
    os.chdir(folder)
    signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    sys.path[:] = path


def test_nothing_changed_is_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    with shielded() as changes:
        pass

    assert changes == []
    assert not caplog.records


def test_cwd_is_put_back(tmp_path: Path) -> None:
    before = os.getcwd()

    with shielded() as changes:
        os.chdir(tmp_path)

    assert os.getcwd() == before
    assert changes == [f"cwd to {tmp_path}"]


def test_cwd_that_is_gone_is_put_back(tmp_path: Path) -> None:
    before = os.getcwd()

    with shielded() as changes:
        (tmp_path / "sub").mkdir()
        os.chdir(tmp_path / "sub")
        (tmp_path / "sub").rmdir()

    assert os.getcwd() == before
    assert len(changes) == 1


def test_handlers_are_put_back(caplog: pytest.LogCaptureFixture) -> None:
    with shielded() as changes:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGRTMIN + 3, lambda *_: None)

    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGRTMIN + 3) is signal.SIG_DFL
    assert changes == ["handler of SIGUSR1", f"handler of signal {signal.SIGRTMIN + 3}"]
    (line,) = caplog.messages
    assert "handler of SIGUSR1" in line


def test_python_handler_is_put_back() -> None:
    def mine(*_: object) -> None: ...

    signal.signal(signal.SIGUSR1, mine)

    with shielded() as changes:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    assert signal.getsignal(signal.SIGUSR1) is mine
    assert len(changes) == 1


def test_blocked_signals_and_the_wakeup_fd_are_put_back() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    with shielded() as changes:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        signal.set_wakeup_fd(writer)

    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.set_wakeup_fd(-1) == -1
    assert changes == ["signal mask", "wakeup fd"]
    os.close(reader)
    os.close(writer)


def test_what_left_sys_path_is_named_and_what_came_is_not() -> None:
    with shielded() as changes:
        gone = sys.path.pop()
        sys.path.insert(0, "/srv/new")

    assert changes == [f"sys.path without {gone!r}"]


def test_import_that_fails_is_shielded_too(tmp_path: Path) -> None:
    before = os.getcwd()

    def fail() -> None:
        os.chdir(tmp_path)
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"), shielded():
        fail()

    assert os.getcwd() == before


def test_no_descriptor_is_left() -> None:
    before = os.listdir("/proc/self/fd")

    with shielded():
        pass

    assert os.listdir("/proc/self/fd") == before
