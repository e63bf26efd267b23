"""The channel between the master and one of its processes: SEQPACKET, MessagePack maps.

Each process has its own. The forking side reports the pid on it before the process runs,
so all that the master hears about a process comes in order on one descriptor, and EOF is
its end. Messages carry descriptors (SCM_RIGHTS) where needed.

The master never blocks here, and never believes a child: what does not decode is dropped
and counted. A child may block in a send, for the master always reads.
"""

from __future__ import annotations

import os
import select
import socket
from array import array
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

    def number(self, key: str) -> int:
        """Return an integer of the body; 0 where there is none."""
        value = self.body.get(key)
        return value if isinstance(value, int) else 0

    def texts(self, key: str) -> list[str]:
        """Return a list of texts of the body."""
        value = self.body.get(key)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def pairs(self) -> dict[str, str | None]:
        """Return the mapping of path or name → text that `pairs` holds, without what is no pair."""
        found = self.body.get("pairs")
        return {
            str(pair[0]): pair[1] if isinstance(pair[1], str) else None
            for pair in (found if isinstance(found, list) else [])
            if isinstance(pair, list) and len(pair) == 2
        }


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
        flags = 0 if block else socket.MSG_DONTWAIT
        try:
            data, fds = self._receive(flags)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:
            raise Closed from None
        if not data:
            for fd in fds:
                os.close(fd)
            if self._is_over():
                raise Closed
            self.bad += 1
            return None
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

    def _receive(self, flags: int) -> tuple[bytes, list[int]]:
        # Not socket.recv_fds: it ignores its flags.
        room = socket.CMSG_SPACE(MAX_FDS * array("i").itemsize)
        flags |= socket.MSG_CMSG_CLOEXEC
        try:
            data, ancillary, _, _ = self.socket.recvmsg(MAX_MESSAGE_BYTES, room, flags)
        except ConnectionResetError:
            # The other end died with orders unread; what it had said stands behind that.
            data, ancillary, _, _ = self.socket.recvmsg(MAX_MESSAGE_BYTES, room, flags)
        fds = array("i")
        for level, kind, packed in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
        return data, list(fds)

    def _is_over(self) -> bool:
        """Tell an empty message from the end."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def close(self) -> None:
        self.socket.close()
