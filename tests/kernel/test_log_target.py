"""Where the log is written: descriptors, journald's socket, and never a wait where none may be."""

from __future__ import annotations

import os
import pty
import socket
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.logger import target
from procd.logger.entry import Entry, Who
from procd.logger.target import Target

WHO = Who("worker", 71, 0, 3)


def entry(message: str) -> Entry:
    return Entry(1.0, "info", WHO, message)


def write_often(where: Target, message: str) -> None:
    for _ in range(10_000):
        target.write_at_once(where, entry(message))


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """What journald listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def journal(journald: socket.socket) -> Iterator[Target]:
    fd = target.journal_socket(journald.getsockname())
    assert fd is not None
    yield Target(fd, "journal", identifier="shop")
    os.close(fd)


def test_the_journal_gets_one_datagram_an_entry(journald: socket.socket, journal: Target) -> None:
    target.write_at_once(journal, entry("two\nlines"))
    target.send(journal.fd, journal.render(entry("next")))
    assert journald.recv(1 << 20) == journal.render(entry("two\nlines"))
    assert journald.recv(1 << 20) == journal.render(entry("next"))


def test_what_is_too_large_for_a_datagram_comes_as_a_sealed_file(
    journald: socket.socket, journal: Target
) -> None:
    data = journal.render(entry("x" * (16 << 20)))
    before = len(os.listdir("/proc/self/fd"))
    target.send(journal.fd, data)
    assert len(os.listdir("/proc/self/fd")) == before
    said, ancillary, _, _ = journald.recvmsg(100, socket.CMSG_SPACE(4))
    assert said == b""
    fds = array("i", ancillary[0][2])
    with os.fdopen(fds[0], "rb") as file:
        assert os.pread(file.fileno(), len(data) + 1, 0) == data
        with pytest.raises(PermissionError):
            os.ftruncate(file.fileno(), 0)


def test_a_journal_that_takes_nothing_holds_up_nobody(journal: Target) -> None:
    with pytest.raises(BlockingIOError):
        write_often(journal, "x")


def test_no_journald_is_an_answer(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert target.journal_socket(str(tmp_path / "none")) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_stream_is_the_journals_by_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as file:
        found = os.fstat(file.fileno())
        right = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert target.is_journal(file.fileno(), right)
        for wrong in ("", "x", f"{found.st_dev}:{found.st_ino + 1}", f"{found.st_ino}"):
            assert not target.is_journal(file.fileno(), {"JOURNAL_STREAM": wrong})
        assert not target.is_journal(file.fileno(), {})
    assert not target.is_journal(-1, right)


def test_colours_are_for_a_terminal_whose_owner_likes_them(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        assert target.is_coloured(theirs, {"TERM": "xterm"})
        assert not target.is_coloured(theirs, {"NO_COLOR": "1"})
        assert target.is_coloured(theirs, {"NO_COLOR": ""})
        assert not target.is_coloured(theirs, {"TERM": "dumb"})
        with (tmp_path / "file").open("w") as file:
            assert not target.is_coloured(file.fileno(), {})
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_full_pipe_holds_up_nobody() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(BlockingIOError):
            write_often(Target(writer), "x" * 10_000)
    finally:
        os.close(reader)
        os.close(writer)
