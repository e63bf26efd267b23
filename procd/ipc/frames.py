"""What goes between the gate and a program outside of the service: frames on a Unix stream.

Pure: bytes in, frames out. A frame is a head (kind, the ask that it belongs to, length) and so
many bytes. The client numbers its asks; the gate answers each with ACCEPTED or REFUSED, and
one that was accepted later with RESULT, FAILED or LOST, in whatever order results come. A
durable task is ACCEPTED, or REFUSED, after it was WRITTEN.

Either side trusts only what it has read: a length is a claim, and no memory is taken for it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from enum import IntEnum
from io import BytesIO
from typing import NamedTuple

from procd.ipc import wire

VERSION = 2
SOCKET = "gate.sock"  # in run_dir/ipc
HEAD = struct.Struct("<B3xIQ")
ID = struct.Struct("<Q")


class Kind(IntEnum):
    """What a frame's bytes are; MessagePack where nothing else is said."""

    # From the client
    DATA = 1  # a task for on_task: its data
    NAMED = 2  # a named task: [name, args, kwargs]
    OPTIONS = 3  # of the task that comes next, under the same ask: tasks.options.Given
    CANCEL = 4  # ID of a task: RESULT tells whether it was not over
    # From the gate
    HELLO = 16  # the first, and whenever it changes: [VERSION, task_max_bytes]
    ACCEPTED = 17  # ID: the task's slot is written; a durable one is on the disk
    REFUSED = 18  # [name of an exception of procd.errors, its text]
    RESULT = 19  # the result
    FAILED = 20  # as tasks.failure packs it
    LOST = 21  # text: why nobody will tell what becomes of the task
    WRITTEN = 22  # ID: nothing is promised yet


FROM_CLIENT = frozenset({Kind.DATA, Kind.NAMED, Kind.OPTIONS, Kind.CANCEL})
FROM_GATE = frozenset(Kind) - FROM_CLIENT


class Frame(NamedTuple):
    """One frame; *data* is None if it is longer than its reader takes."""

    kind: int
    ask: int
    size: int
    data: bytes | None


def head(kind: Kind, ask: int, size: int) -> bytes:
    return HEAD.pack(kind, ask, size)


def hello(max_bytes: int) -> bytes:
    return wire.pack([VERSION, max_bytes])


def read_hello(data: bytes) -> int:
    """Return the task_max_bytes that a gate tells; raises Undecodable for another version."""
    value = wire.unpack(data)
    if not isinstance(value, list) or len(value) < 2 or type(value[1]) is not int:
        raise wire.Undecodable("not a gate's greeting")
    if value[0] != VERSION:
        raise wire.Undecodable(f"it speaks version {value[0]}, this procd {VERSION}")
    return value[1]


def read_id(data: bytes) -> int:
    """Return the id of a task that was accepted; raises Undecodable."""
    if len(data) != ID.size:
        raise wire.Undecodable("not an id")
    return int.from_bytes(data, "little")


class Reader:
    """Puts a stream's bytes together. Data over *max_bytes* (None = any) is passed over."""

    def __init__(self, kinds: Collection[Kind], max_bytes: int | None = None) -> None:
        self._kinds = kinds
        self.max_bytes = max_bytes
        self._head = bytearray()
        self._kind = self._ask = self._size = self._left = 0
        self._body: BytesIO | None = None  # of the frame that is coming, if it is wanted

    @property
    def assembling(self) -> int:
        """How many bytes the data has that is coming; 0 = none is, or none that is kept."""
        return self._size if self._body is not None else 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take in some bytes; return the frames that they complete.

        Raises Undecodable at a head of another kind than is to be expected.
        """
        found: list[Frame] = []
        rest = memoryview(data)
        while True:
            if len(self._head) < HEAD.size:
                missing = HEAD.size - len(self._head)
                self._head += rest[:missing]
                rest = rest[missing:]
                if len(self._head) < HEAD.size:
                    return found
                self._begin()
            piece = rest[: self._left]
            rest = rest[len(piece) :]
            self._left -= len(piece)
            if self._body is not None:
                self._body.write(piece)
            if self._left:
                return found
            found.append(self._end())

    def _begin(self) -> None:
        self._kind, self._ask, self._size = HEAD.unpack(self._head)
        if self._kind not in self._kinds:
            raise wire.Undecodable(f"a frame of kind {self._kind}")
        self._left = self._size
        is_wanted = self.max_bytes is None or self._size <= self.max_bytes
        self._body = BytesIO() if is_wanted else None

    def _end(self) -> Frame:
        # Of a BytesIO that nobody else has, getvalue() copies nothing.
        data = None if self._body is None else self._body.getvalue()
        self._body = None
        self._head.clear()
        return Frame(self._kind, self._ask, self._size, data)
