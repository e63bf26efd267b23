"""The channel between the master and one of its processes: SEQPACKET, MessagePack maps.

Each process has its own. The forking side reports the pid on it before the process runs,
so all that the master hears about a process comes in order on one descriptor, and EOF is
its end. Messages carry descriptors (SCM_RIGHTS) where needed.

The master never blocks here, and never believes a child: what does not decode is dropped
and counted. A child may block in a send, for the master always reads.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from procd.ipc import wire

MAX_MESSAGE_BYTES = 128 * 1024
MAX_FDS = 64  # listeners and the channel itself; the kernel allows 253 a message

Body = dict[str, object]


class Packet(NamedTuple):
    """One message with its descriptors (the receiver owns them)."""

    kind: str
    body: Body
    fds: tuple[int, ...]


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end. Not inherited over exec."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.bad = 0  # messages that were none

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return the master's end and the process's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_MESSAGE_BYTES)
        return cls(ours), cls(theirs)

    @classmethod
    def of_fd(cls, fd: int) -> Channel:
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, kind: str, body: Body | None = None, fds: Sequence[int] = ()) -> bool:
        """Send one message; False when the other end is gone or (master) does not read."""
        data = wire.pack([kind, body or {}])
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a channel message of {len(data)} bytes: {kind}")
        try:
            socket.send_fds(self.socket, [data], list(fds))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self, *, block: bool = False) -> Packet | None:
        """Return one message, None when there is none now (or it was none of ours).

        Raises Closed at the end.
        """
        flags = socket.MSG_CMSG_CLOEXEC | (0 if block else socket.MSG_DONTWAIT)
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, MAX_MESSAGE_BYTES, MAX_FDS, flags)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:
            raise Closed from None
        if not data:
            raise Closed
        try:
            message = wire.unpack(data)
        except wire.Undecodable:
            message = None
        if isinstance(message, list) and len(message) == 2:
            kind, body = message
            if isinstance(kind, str) and isinstance(body, dict):
                return Packet(kind, body, tuple(fds))
        self.bad += 1
        for fd in fds:
            os.close(fd)
        return None

    def close(self) -> None:
        self.socket.close()
