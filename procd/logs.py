"""The log: one event one line, a fixed phrase then key=value.

    2026-11-23T15:04:05.123 info master[71] ready role=worker id=3 generation=2 boot=0.041

Where a process's records go:
- The master writes them itself until there is a logger, and whenever there is none; else it hands
  them over, and never waits for that.
- Every other process writes them into its standard error, a pipe to the logger, between what it
  prints. While nobody empties that pipe it waits a little, and then drops the record.
- Where there is no logger at all (a command), they go to stderr.
"""

from __future__ import annotations

import io
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from procd.logger import target
from procd.logger.entry import LEVELS, Entry, Who, framed, level_of
from procd.logger.target import Target

log = logging.getLogger("procd")

WAIT_SECONDS = 2.0  # for room in a pipe that another logger is about to empty


class Way(Protocol):
    """Where records go."""

    def put(self, entry: Entry) -> None: ...


class Direct:
    """Written by this process itself, which waits for nobody: who does not read misses it."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = targets

    def put(self, entry: Entry) -> None:
        for each in self.targets:
            with suppress(OSError, ValueError):  # a full disk, a closed stderr
                target.write_at_once(each, entry)


_direct = Direct((Target(2),))


class Handed:
    """Handed to the logger by a socket; written by this process itself if that is full."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def put(self, entry: Entry) -> None:
        data = framed(entry.time, entry.level, entry.who.pid, entry.message)
        try:
            self._socket.send(data, socket.MSG_DONTWAIT)
        except OSError:  # nobody takes them out
            _direct.put(entry)


class Printed:
    """Written between what this process prints, to its stderr."""

    def __init__(self) -> None:
        self.dropped = 0
        self._room = select.poll()
        self._room.register(2, select.POLLOUT)

    def put(self, entry: Entry) -> None:
        data = framed(entry.time, entry.level, entry.who.pid, entry.message)
        try:
            if not self._room.poll(WAIT_SECONDS * 1000):
                self.dropped += 1
            while data:
                data = data[os.write(2, data) :]
        except OSError:  # the app has closed it
            self.dropped += 1


class Handler(logging.Handler):
    """Makes an entry of each record, a traceback within it, and sends it its way."""

    def __init__(self) -> None:
        super().__init__()
        self.role = "procd"
        self.captures = True
        self.way: Way = _direct

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
        except Exception:  # noqa: BLE001 - an app's own __str__ may do anything
            message = "a log record could not be formatted"
        who = Who(self.role, os.getpid())
        self.way.put(Entry(record.created, level_of(record.levelno), who, message))


_handler = Handler()


def setup(targets: Sequence[Target], level: str, *, captures: bool = True) -> None:
    """Write procd's log there; once a process and its forks.

    Without *captures* the processes keep the terminal, for a debugger, and write their own records.
    """
    _handler.captures = captures
    _direct.targets = targets
    _handler.way = _direct
    log.handlers[:] = [_handler]
    log.propagate = False
    log.setLevel(LEVELS[level])


def targets() -> Sequence[Target]:
    """Return where the log is written in the end."""
    return _direct.targets


def captures() -> bool:
    """Tell whether what processes print goes through the logger."""
    return _handler.captures


def hand_over(sock: socket.socket | None) -> None:
    """Hand all records to the logger by this socket; None: write them here again."""
    _handler.way = _direct if sock is None else Handed(sock)


def write(entries: Sequence[Entry]) -> None:
    """Write entries of others from here: there is no logger any more."""
    for entry in entries:
        _direct.put(entry)


def print_into(pipe: int) -> None:
    """Have all that this process prints and logs go into a pipe to the logger, which is taken over.

    Also what the app logs with nothing set up for it, which Python prints to stderr.
    """
    for fd in (1, 2):
        os.dup2(pipe, fd)
    os.close(pipe)
    _handler.way = Printed()
    with suppress(OSError):  # who we are, before anything is printed
        os.write(2, framed(time.time(), "debug", os.getpid(), ""))
    logging.lastResort = _handler
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.line_buffering:
            stream.reconfigure(line_buffering=True)  # else it waits until 8 KiB are full


def name_process(role: str) -> None:
    """Say who writes from now on, where no logger knows."""
    _handler.role = role


def set_level(level: str) -> None:
    log.setLevel(LEVELS[level])


def fds() -> set[int]:
    """Return the descriptors that the log is written to."""
    return {each.fd for each in _direct.targets}


def line(phrase: str, **fields: object) -> str:
    """Return `phrase key=value ...`; None is left out, text with spaces is quoted."""
    parts = [phrase]
    for key, value in fields.items():
        if value is None:
            continue
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        parts.append(f"{key}={text!r}" if " " in text or not text else f"{key}={text}")
    return " ".join(parts)


def info(phrase: str, **fields: object) -> None:
    log.info("%s", line(phrase, **fields))


def warning(phrase: str, **fields: object) -> None:
    log.warning("%s", line(phrase, **fields))


def error(phrase: str, **fields: object) -> None:
    log.error("%s", line(phrase, **fields))


def reopened(fd: int) -> None:
    """Go on writing into the file behind a descriptor that somebody has opened, which is closed.

    The log's own descriptor keeps its number, so that whatever prints to it follows too.
    """
    for each in _direct.targets:
        if each.path is not None:
            os.dup2(fd, each.fd, inheritable=each.fd <= 2)
            if each.fd == 2:
                os.dup2(fd, 1)
    os.close(fd)


def ordered(level: object, received: Sequence[int] = ()) -> None:
    """Do what the master says of the log: another level."""
    if isinstance(level, str) and level in LEVELS:
        set_level(level)
    for fd in received:
        os.close(fd)


def file() -> Target | None:
    """Return the file that the log is written to, which can be reopened."""
    return next((each for each in _direct.targets if each.path is not None), None)
