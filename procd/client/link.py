"""One connection to a gate: tasks out, answers in. Never blocks.

A task is the gate's once all of its bytes are with the kernel. Should the connection end before,
the gate cannot have it, and it may be sent on another one; afterwards nobody can tell.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from contextlib import suppress

from procd.client.sent import Sent
from procd.errors import (
    ConnectionLost,
    MessageTooBig,
    NotRunning,
    ProcdError,
    TaskQueueFull,
    TaskRejected,
)
from procd.ipc import frames, wire
from procd.ipc.frames import Frame, Kind, Reader

CHUNK = 256 * 1024
_REFUSALS = (TaskQueueFull, TaskRejected, MessageTooBig, NotRunning)
_REFUSAL_OF = {kind.__name__: kind for kind in _REFUSALS}


class Broken(Exception):
    """The connection has ended."""


class Link:
    """Owns a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.max_bytes: int | None = None  # until the gate has greeted nothing is sent
        self.unsent: deque[Sent] = deque()
        self.asks: dict[int, Sent] = {}  # whose frames have begun to go out
        self._reader = Reader(frames.FROM_GATE)
        self._pieces: list[memoryview] = []  # of the first that is unsent
        self._ask = 0

    @property
    def is_idle(self) -> bool:
        return not self.unsent and not self.asks

    def wanted(self) -> int:
        """Return what to wait for."""
        writes = self.unsent and self.max_bytes is not None
        return select.POLLIN | (select.POLLOUT if writes else 0)

    # Out

    def flush(self) -> None:
        """Send what the kernel takes; raises Broken."""
        while self.unsent and self.max_bytes is not None:
            sent = self.unsent[0]
            if not self._pieces and not self._begin(sent, self.max_bytes):
                self.unsent.popleft()
                continue
            try:
                count = self.socket.sendmsg(self._pieces)
            except BlockingIOError:
                return
            except OSError:
                raise Broken from None
            self._drop(count)
            if not self._pieces:
                sent.is_out, sent.payload, sent.options = True, b"", b""
                self.unsent.popleft()

    def _begin(self, sent: Sent, max_bytes: int) -> bool:
        if sent.size > max_bytes:
            text = f"a task of {sent.size} bytes; {max_bytes} are allowed (task_max_bytes)"
            sent.fail(MessageTooBig(f"{text}: leave the data in a file and send its path"))
            return False
        self._ask = self._ask % (2**32 - 1) + 1  # 0 means none
        self.asks[self._ask] = sent
        pieces = [frames.head(sent.kind, self._ask, sent.size), sent.payload]
        if sent.options:
            head = frames.head(Kind.OPTIONS, self._ask, len(sent.options))
            pieces = [head, sent.options, *pieces]
        self._pieces = [memoryview(piece) for piece in pieces]
        return True

    def _drop(self, count: int) -> None:
        left = []
        for piece in self._pieces:
            gone = min(count, len(piece))
            count -= gone
            if gone < len(piece):
                left.append(piece[gone:])
        self._pieces = left

    # In

    def receive(self) -> None:
        """Take in what has come; raises Broken, and ProcdError if the gate refuses us whole."""
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            raise Broken from None
        if not data:
            raise Broken
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except wire.Undecodable as error:
            raise ProcdError(f"the gate cannot be understood: {error}") from None

    def _take(self, frame: Frame) -> None:
        data = frame.data or b""
        if frame.kind == Kind.HELLO:
            self.max_bytes = frames.read_hello(data)
        elif frame.kind == Kind.REFUSED and not frame.ask:
            raise _refusal(data)
        elif frame.kind == Kind.ACCEPTED and frame.ask in self.asks:
            self.asks[frame.ask].accept(frames.read_id(data))
        elif frame.kind == Kind.WRITTEN and frame.ask in self.asks:
            self.asks[frame.ask].written.set(frames.read_id(data))
        elif frame.ask in self.asks:
            _settle(self.asks.pop(frame.ask), frame.kind, data)

    def close(self) -> None:
        """Leave; who waits for a result learns that it is not to be had."""
        with suppress(OSError):
            self.socket.close()
        self._pieces = []
        for sent in self.asks.values():
            if sent.accepted.is_set:
                number = sent.accepted.get()
                text = f"task {number} was accepted and runs, but its result is not to be had"
                sent.fail(ConnectionLost(f"the connection to the service is gone: {text}"))
            elif sent.is_out:
                what = "cancelled" if sent.kind == Kind.CANCEL else "accepted"
                text = f"whether the task was {what} is not known"
                sent.fail(ConnectionLost(f"the connection to the service broke: {text}"))
        self.asks.clear()


def _settle(sent: Sent, kind: int, data: bytes) -> None:
    match kind:
        case Kind.RESULT | Kind.FAILED:
            sent.packed.set((data, kind == Kind.FAILED))
        case Kind.REFUSED:
            sent.fail(_refusal(data))
        case Kind.LOST:
            number = sent.written.get()
            sent.fail(ConnectionLost(f"task {number}: {data.decode(errors='replace')}"))


def _refusal(data: bytes) -> ProcdError:
    value = wire.unpack(data)
    if not isinstance(value, list) or len(value) != 2:
        raise wire.Undecodable("not a refusal")
    return _REFUSAL_OF.get(str(value[0]), TaskRejected)(str(value[1]))
