"""Inboxes: how a process is told something by another one, by row and incarnation.

A Unix datagram socket in run_dir/ipc (0700) for each process. It holds some eleven
datagrams (net.unix.max_dgram_qlen): a full one is said to the sender, never waited for,
so nobody blocks on a send while others wait for him to read. What comes out is
untrusted: anything that is no message of ours is counted and dropped.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from procd.errors import InboxFull, MessageTooBig
from procd.ipc import wire

MAX_MESSAGE_BYTES = 200_000  # 212,000 pass through a datagram socket, 300,000 do not
_MAX_DATAGRAM = MAX_MESSAGE_BYTES + 64

MOST_PATHS = 1000  # that a sender remembers
MAX_PROGRESS_BYTES = 8_000  # a small one finds room where a large one would not

HINT, TASK, MESSAGE, PROGRESS = b"H", b"T", b"M", b"P"
FOLLOW, OUTCOME, INHERITED = b"F", b"O", b"I"
_TOKEN = struct.Struct("<cQ")
_FOLLOW = struct.Struct("<cQIQ")
_OUTCOME = struct.Struct("<cQB")


class Hint(NamedTuple):
    """The result of an own task stands in its slot."""

    token: int


class Addressed(NamedTuple):
    """A task for this very task worker stands in a slot."""

    token: int


class Message(NamedTuple):
    """A pipe message."""

    src_worker_id: int
    data: object


class Progress(NamedTuple):
    """What an own task tells while it runs."""

    token: int
    value: object


class Follow(NamedTuple):
    """Another process wants to be told how an own task ends."""

    token: int
    row: int
    incarnation: int


class Passed(IntEnum):
    """What an Outcome brings."""

    RESULT = 0
    FAILURE = 1
    OVER = 2  # it is over, and its result not kept
    TOO_LARGE = 3
    REJECTED = 4  # a failure, of a durable one that was never accepted


class Outcome(NamedTuple):
    """How a task ended that another process has sent."""

    token: int
    passed: Passed
    packed: bytes


class Inherited(NamedTuple):
    """Results of tasks that a predecessor has sent."""

    tokens: tuple[int, ...]


_PASSED = frozenset(Passed)
Datagram = Hint | Addressed | Message | Progress | Follow | Outcome | Inherited


class Gone(Exception):
    """That process is not there any more."""


def path_of(folder: Path, row: int, incarnation: int) -> str:
    return f"{folder}/{row}.{incarnation}.sock"


def hint(token: int) -> bytes:
    return _TOKEN.pack(HINT, token)


def addressed(token: int) -> bytes:
    return _TOKEN.pack(TASK, token)


def message(src_worker_id: int, data: object) -> bytes:
    """Raises TypeError for data that cannot travel, MessageTooBig over 200,000 bytes."""
    packed = MESSAGE + wire.pack([src_worker_id, data])
    if len(packed) > MAX_MESSAGE_BYTES:
        raise MessageTooBig(
            f"a message of {len(packed)} bytes; an inbox takes {MAX_MESSAGE_BYTES}: "
            "leave it in a file and send the path"
        )
    return packed


def progress(token: int, value: object) -> bytes:
    """Raises TypeError for a value that cannot travel, MessageTooBig over 8,000 bytes."""
    packed = _TOKEN.pack(PROGRESS, token) + wire.pack(value)
    if len(packed) > MAX_PROGRESS_BYTES:
        raise MessageTooBig(f"a progress of {len(packed)} bytes; {MAX_PROGRESS_BYTES} are allowed")
    return packed


def follow(token: int, row: int, incarnation: int) -> bytes:
    return _FOLLOW.pack(FOLLOW, token, row, incarnation)


def outcome(token: int, passed: Passed, packed: bytes = b"") -> bytes:
    """One over 200,000 bytes says TOO_LARGE instead."""
    if len(packed) > MAX_MESSAGE_BYTES:
        passed, packed = Passed.TOO_LARGE, b""
    return _OUTCOME.pack(OUTCOME, token, passed) + packed


def inherited(tokens: Sequence[int]) -> bytes:
    return INHERITED + struct.pack(f"<{len(tokens)}Q", *tokens)


def parse(datagram: memoryview) -> Datagram:
    """Raises wire.Undecodable for anything that the functions above did not make."""
    if len(datagram) == _TOKEN.size:
        kind, token = _TOKEN.unpack(datagram)
        if kind == HINT:
            return Hint(token)
        if kind == TASK:
            return Addressed(token)
    kind = bytes(datagram[:1])
    if kind == MESSAGE:
        value = wire.unpack(datagram[1:])
        if isinstance(value, list) and len(value) == 2 and type(value[0]) is int:
            return Message(value[0], value[1])
    if kind == PROGRESS and len(datagram) > _TOKEN.size:
        token = _TOKEN.unpack(datagram[: _TOKEN.size])[1]
        return Progress(token, wire.unpack(datagram[_TOKEN.size :]))
    note = _note(kind, datagram)
    if note is None:
        raise wire.Undecodable("not a message of procd")
    return note


def _note(kind: bytes, datagram: memoryview) -> Follow | Outcome | Inherited | None:
    if kind == FOLLOW and len(datagram) == _FOLLOW.size:
        return Follow(*_FOLLOW.unpack(datagram)[1:])
    if kind == OUTCOME and len(datagram) >= _OUTCOME.size:
        _, token, passed = _OUTCOME.unpack(datagram[: _OUTCOME.size])
        if passed in _PASSED:
            return Outcome(token, Passed(passed), bytes(datagram[_OUTCOME.size :]))
    if kind == INHERITED and len(datagram) % 8 == 1:
        return Inherited(struct.unpack(f"<{len(datagram) // 8}Q", datagram[1:]))
    return None


class Inbox:
    """The receiving end; a process makes its own, the master removes what the dead left."""

    def __init__(self, folder: Path, row: int, incarnation: int) -> None:
        self.path = path_of(folder, row, incarnation)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(self.path)
        # Not a bytearray: of a mapping only the pages that a datagram fills become memory.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._buffer = memoryview(mmap.mmap(-1, _MAX_DATAGRAM, private))

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self) -> memoryview | None:
        """Return one datagram, None when there is none. Valid until the next call."""
        try:
            size = self.socket.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return None
        return self._buffer[:size]

    def close(self) -> None:
        self.socket.close()
        remove(self.path)


def remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


class Post:
    """The sending end.

    Hints and messages have a socket each: unread large messages fill their sender's buffer,
    and hints must still go out then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hints = self._open()
        self._messages = self._open()
        self._paths: dict[tuple[int, int], str] = {}

    @property
    def fds(self) -> set[int]:
        return {self._hints.fileno(), self._messages.fileno()}

    @staticmethod
    def _open() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_MESSAGE_BYTES)
        return sock

    def send(self, row: int, incarnation: int, datagram: bytes) -> None:
        """Raises InboxFull, Gone."""
        sock = self._hints if datagram[:1] in (HINT, TASK, FOLLOW) else self._messages
        try:
            sock.sendto(datagram, self._path(row, incarnation))
        except BlockingIOError:
            raise InboxFull("the inbox is full: its process has not read yet") from None
        except (ConnectionRefusedError, FileNotFoundError):
            raise Gone(f"row {row}, incarnation {incarnation}") from None
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise InboxFull("the kernel has no room for the message now") from None
            raise

    def _path(self, row: int, incarnation: int) -> str:
        to = row, incarnation
        path = self._paths.get(to)
        if path is None:
            if len(self._paths) == MOST_PATHS:  # most of them of processes that are gone
                self._paths.clear()
            path = self._paths[to] = path_of(self._folder, row, incarnation)
        return path
