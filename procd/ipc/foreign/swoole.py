"""The two headers that a Swoole server's task queue knows, byte for byte.

Swoole 1.8.7 - 4.3.1, 12 bytes, PHP's pack('lSsCCS') on a little-endian machine:

    0   i32  task id
    4   u16  bytes behind the header (152 if they name a file, whatever was sent)
    6   i16  worker that sent it
    8   u8   event, 7 = a task
    9   u8   0
    10  u16  flags

Swoole 4.8 - 6.x, 40 bytes, struct '<qQIhBBHHId':

    0   i64  task id             22  u8   event, 7 = a task (8 from 6.1 on)
    8   u64  message id          23  u8   0
    16  u32  bytes behind it     24  u16  0 (server_fd)
    20  i16  worker              26  u16  flags
                                 28  u32  0
                                 32  f64  time of sending

Flags: the data stands in a file 1, it is PHP's serialize() 2, do not wait for a result 4, send
none 128 (40 bytes only). Behind the header: the data, or how long it is and which file has it,
as i32 and a path that ends with NUL (12), as u64 and 256 bytes filled with NUL (40).

Rules:
- A length in a header is only a claim: where it does not fit the message, it is Undecodable.
- A path is a claim of the sender. Nothing here opens it, and whoever does has to distrust it:
  Swoole itself reads and deletes any file that it is told to.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TypeAlias

from procd.ipc.wire import Undecodable

OLD_BYTES, NEW_BYTES = 12, 40

_OLD = struct.Struct("<iHhBBH")
_NEW = struct.Struct("<qQIhBBHHId")
_OLD_FILE, _NEW_FILE = struct.Struct("<i"), struct.Struct("<Q")
_OLD_FILE_BYTES = 128 + 24  # what the old header says of a file's name
_NEW_PATH_BYTES = 256
_LARGEST_EVENT = 40  # of any version; behind it bytes that only look like a header


class OtherEvent(Undecodable):
    """A message of Swoole's own that is no task: some stop a worker. Never obeyed."""


class Event(IntEnum):
    """What a message is; others on that queue stop a task worker, and are refused here."""

    TASK = 7
    TASK_SINCE_6_1 = 8


class Flag(IntFlag):
    """How the data is to be read, and what the sender waits for."""

    TMPFILE = 1
    SERIALIZE = 2
    NONBLOCK = 4
    NOREPLY = 128


@dataclass(frozen=True, slots=True)
class TmpFile:
    """Where the data stands, if not in the message."""

    path: bytes
    data_bytes: int


Body: TypeAlias = bytes | TmpFile


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """One message. *flags* as sent; TMPFILE in them goes with a body that is a TmpFile."""

    task_id: int
    body: Body
    flags: int = Flag.NONBLOCK
    src_worker_id: int = 0
    event: int = Event.TASK
    message_id: int = 0  # of the 40 bytes only
    time: float = 0.0  # likewise

    @property
    def is_serialized(self) -> bool:
        """Whether the data is PHP's serialize(), else it is the text itself."""
        return bool(self.flags & Flag.SERIALIZE)


def inline_max(header_bytes: int) -> int:
    """The most data that Swoole's own clients put into a message: with its header 8 KiB."""
    return 8192 - header_bytes - 1


def path_max(header_bytes: int) -> int:
    """The longest path that Swoole has room for, without its NUL."""
    if header_bytes == OLD_BYTES:
        return _OLD_FILE_BYTES - _OLD_FILE.size - 1
    return _NEW_PATH_BYTES - 1


def build(message: TaskMessage, header_bytes: int) -> bytes:
    """Return the message's bytes, with a header of 12 or of 40.

    Raises ValueError for what does not fit into its field.
    """
    is_file = isinstance(message.body, TmpFile)
    if is_file != bool(message.flags & Flag.TMPFILE):
        raise ValueError("the flag TMPFILE and a body that is a file go together")
    try:
        if header_bytes == OLD_BYTES:
            return _build_old(message)
        if header_bytes == NEW_BYTES:
            return _build_new(message)
    except struct.error as error:
        raise ValueError(f"{message!r:.200} does not fit its header: {error}") from None
    raise ValueError(f"no header of Swoole has {header_bytes} bytes: 12 or 40")


def parse(data: bytes, header_bytes: int | None = None) -> tuple[TaskMessage, int]:
    """Take a message apart: (message, bytes of its header); raises Undecodable.

    Without *header_bytes* both are tried, the longer first. A message of the one that passes for
    the other can only be made on purpose: what its event, its zeros and its length say must fit.
    """
    if header_bytes == OLD_BYTES:
        return _parse_old(data), OLD_BYTES
    if header_bytes == NEW_BYTES:
        return _parse_new(data), NEW_BYTES
    if header_bytes is not None:
        raise ValueError(f"no header of Swoole has {header_bytes} bytes: 12 or 40")
    try:
        return _parse_new(data), NEW_BYTES
    except Undecodable as new:
        try:
            return _parse_old(data), OLD_BYTES
        except Undecodable as old:
            other = isinstance(new, OtherEvent) or isinstance(old, OtherEvent)
            kind = OtherEvent if other else Undecodable
            raise kind(f"{new}; {old}") from None


def _build_old(message: TaskMessage) -> bytes:
    if isinstance(message.body, TmpFile):
        _check_path(message.body.path, OLD_BYTES)
        body = _OLD_FILE.pack(message.body.data_bytes) + message.body.path + b"\0"
        length = _OLD_FILE_BYTES
    else:
        body = message.body
        length = len(body)
    header = (message.task_id, length, message.src_worker_id, message.event, 0, message.flags)
    return _OLD.pack(*header) + body


def _build_new(message: TaskMessage) -> bytes:
    if isinstance(message.body, TmpFile):
        _check_path(message.body.path, NEW_BYTES)
        path = message.body.path.ljust(_NEW_PATH_BYTES, b"\0")
        body = _NEW_FILE.pack(message.body.data_bytes) + path
    else:
        body = message.body
    head = (message.task_id, message.message_id, len(body), message.src_worker_id)
    tail = (message.event, 0, 0, message.flags, 0, message.time)
    return _NEW.pack(*head, *tail) + body


def _parse_old(data: bytes) -> TaskMessage:
    if len(data) < OLD_BYTES:
        raise Undecodable(f"no Swoole task: {len(data)} bytes, a header has {OLD_BYTES}")
    task_id, length, worker, event, zero, flags = _OLD.unpack_from(data)
    behind = data[OLD_BYTES:]
    body: Body = behind
    if zero:
        raise Undecodable(f"no Swoole task of 12 bytes: byte 9 is {zero}, not 0")
    if flags & Flag.TMPFILE:
        body = _file(behind, _OLD_FILE, OLD_BYTES)
    elif length != len(behind):
        raise Undecodable(
            f"no Swoole task of 12 bytes: it says {length} bytes, and {len(behind)} follow"
        )
    return TaskMessage(task_id, body, flags, worker, _event(event, OLD_BYTES))


def _parse_new(data: bytes) -> TaskMessage:
    if len(data) < NEW_BYTES:
        raise Undecodable(f"no Swoole task: {len(data)} bytes, a header has {NEW_BYTES}")
    fields = _NEW.unpack_from(data)
    task_id, message_id, length, worker, event, chunks, _server_fd, flags, _reserved, time = fields
    behind = data[NEW_BYTES:]
    body: Body = behind
    if chunks:
        raise Undecodable(f"no Swoole task of 40 bytes: byte 23 is {chunks}, not 0")
    if length != len(behind):
        raise Undecodable(
            f"no Swoole task of 40 bytes: it says {length} bytes, and {len(behind)} follow"
        )
    if flags & Flag.TMPFILE:
        body = _file(behind, _NEW_FILE, NEW_BYTES)
    return TaskMessage(task_id, body, flags, worker, _event(event, NEW_BYTES), message_id, time)


def _event(event: int, header_bytes: int) -> int:
    if event not in tuple(Event):
        kind = OtherEvent if event <= _LARGEST_EVENT else Undecodable
        raise kind(f"no Swoole task of {header_bytes} bytes: event {event}, not 7")
    return event


def _file(behind: bytes, length: struct.Struct, header_bytes: int) -> TmpFile:
    path, nul, _ = behind[length.size :].partition(b"\0")
    if not path or not nul or len(path) > path_max(header_bytes):
        raise Undecodable(f"no Swoole task of {header_bytes} bytes: no file's name follows")
    (data_bytes,) = length.unpack_from(behind)
    if data_bytes < 0:
        raise Undecodable(f"no Swoole task: a file of {data_bytes} bytes")
    return TmpFile(path, data_bytes)


def _check_path(path: bytes, header_bytes: int) -> None:
    if not path or b"\0" in path or len(path) > path_max(header_bytes):
        raise ValueError(
            f"{path!r:.300} is no path that Swoole has room for: 1 .. {path_max(header_bytes)}"
            " bytes"
        )
