"""One program outside, connected to the gate: its bytes in and out, and what it waits for."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from math import inf

from procd import logs
from procd.ipc import frames, wire
from procd.ipc.frames import Frame, Kind, Reader

CHUNK = 64 * 1024  # read at once; larger data is large, see budget
HIGH = 256 * 1024  # unsent bytes beyond which nothing more is taken from the program, or for it
STALL_SECONDS = 60.0  # a program may leave what is for it unread
_PIECES = 64  # sent with one call


class Gone(Exception):
    """The program has left."""


def turn_away(sock: socket.socket, text: str) -> None:
    """Tell a program that has just connected why it is not let in, and close."""
    data = wire.pack(["TaskRejected", text])
    with suppress(OSError):
        sock.send(frames.head(Kind.REFUSED, 0, len(data)) + data, socket.MSG_DONTWAIT)
    sock.close()


class Session:
    """Owns the socket. Never blocks."""

    def __init__(self, sock: socket.socket, max_bytes: int) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.reader = Reader(frames.FROM_CLIENT, max_bytes)
        self.asks: dict[int, int] = {}  # ids of tasks, by the program's numbers: see asks.Asks
        self.tokens: dict[int, int] = {}  # of tasks that the ledger sent again, by their ids
        self.options: Frame | None = None  # of the task that comes next
        self.later: dict[int, None] = {}  # tasks whose results wait until it has read, in order
        self.is_large = False  # a large result is among what is unsent
        self.is_gone = False
        self.in_due = self.out_due = inf  # when it has taken too long
        self._out: deque[memoryview] = deque()
        self.out_bytes = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def is_full(self) -> bool:
        return self.out_bytes > HIGH

    def receive(self) -> list[Frame]:
        """Return the frames that are complete now; raises Gone at the end."""
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        try:
            return self.reader.feed(data)
        except wire.Undecodable as error:
            logs.warning("gate left: a program speaks otherwise", why=error)
            raise Gone from None

    def send(self, kind: Kind, ask: int, data: bytes, now: float) -> None:
        """Say something, now or when the program reads; raises Gone."""
        if not self._out:
            self.out_due = now + STALL_SECONDS
        self._out.append(memoryview(frames.head(kind, ask, len(data))))
        if data:
            self._out.append(memoryview(data))
        self.out_bytes += frames.HEAD.size + len(data)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Send what it takes; raises Gone."""
        while self._out:
            pieces = [self._out[n] for n in range(min(_PIECES, len(self._out)))]
            try:
                sent = self.socket.sendmsg(pieces)
            except BlockingIOError:
                return
            except OSError:
                raise Gone from None
            self._drop(sent)
            if not self.is_large:
                self.out_due = now + STALL_SECONDS
        self.out_due = inf

    def _drop(self, sent: int) -> None:
        self.out_bytes -= sent
        while sent:
            first = self._out[0]
            if sent < len(first):
                self._out[0] = first[sent:]
                return
            sent -= len(first)
            self._out.popleft()

    def close(self) -> None:
        self.is_gone = True
        self.later.clear()
        self._out.clear()
        with suppress(OSError):
            self.socket.close()
