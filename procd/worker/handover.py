"""Connections on their way from one worker to another, over a pipe that the master gave them.

The pipe is SEQPACKET: batches of connections one way, each with its socket (SCM_RIGHTS),
the answers the other way. At any moment exactly one of the two serves a connection:

- the giver neither reads nor writes one that it has sent, and keeps its own descriptor
  until the heir has answered that it holds the socket; then it closes that, which the
  client does not notice, for the heir's is open;
- the heir answers first and serves then. What it could not take (no descriptor free) it
  says; what it has not read when it leaves is nobody's but the giver's.

So the end of the pipe says that all that is unanswered is still the giver's. The giver
never closes it while something is; if it dies, what it had sent is the heir's alone.
Neither waits for the other: both serve their other clients meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from procd import logs
from procd.ipc import wire
from procd.ipc.channel import Channel, Closed, Packet
from procd.worker.connection import Connection

WINDOW = 64  # connections unanswered: descriptors in flight count against RLIMIT_NOFILE
BATCH = 32  # connections of one message
BATCH_BYTES = 64 * 1024  # of their states and unread bytes, but one is always sent

Adopt = Callable[[int, object, bytes, socket.socket], None]


class Offer(NamedTuple):
    """A connection that may go, with its state as it travels."""

    connection: Connection
    state: bytes


class _Lent(NamedTuple):
    connection: Connection
    transport: asyncio.Transport
    unread: bytes

    def take_back(self) -> None:
        self.connection.take_back(self.transport, self.unread)


class Giver:
    """The old worker's side. *gone* gets each connection that has moved.

    *changed* is called when there may be more to do: room for more, or the pipe has ended.
    """

    def __init__(self, gone: Callable[[Connection], None], changed: Callable[[], None]) -> None:
        self.moved = 0
        self.refused: list[str] = []  # sent back for want of descriptors
        self._gone = gone
        self._changed = changed
        self._pipe: Channel | None = None
        self._lent: dict[int, _Lent] = {}
        self._loop = asyncio.get_running_loop()

    def open(self, fd: int) -> None:
        """Give to the heir at the other end of this pipe, if there is none so far."""
        if self._pipe is not None:
            os.close(fd)
            return
        self._pipe = pipe = Channel.of_fd(fd)
        pipe.socket.setblocking(False)
        self._loop.add_reader(fd, self._hear)

    @property
    def has_heir(self) -> bool:
        return self._pipe is not None

    @property
    def room(self) -> int:
        """How many may be given now."""
        return WINDOW - len(self._lent) if self._pipe else 0

    @property
    def unanswered(self) -> int:
        """How many have been sent and not answered for."""
        return len(self._lent)

    def give(self, offers: Sequence[Offer]) -> int:
        """Send at most `room` of them; return how many went."""
        sent, most = 0, min(len(offers), self.room)
        while sent < most:
            batch = _first(offers[sent:], min(BATCH, self.room))
            if not self._send(batch):
                break
            sent += len(batch)
        return sent

    def _send(self, batch: Sequence[Offer]) -> bool:
        if self._pipe is None:
            return False
        lent = [_Lent(offer.connection, *offer.connection.lend()) for offer in batch]
        items = [
            [offer.connection.id, offer.state, each.unread]
            for offer, each in zip(batch, lent, strict=True)
        ]
        fds = [each.transport.get_extra_info("socket").fileno() for each in lent]
        try:
            sent = self._pipe.send("connections", {"items": items}, fds)
        except OSError as error:
            if error.errno not in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                raise
            sent = False  # as with a full pipe: tried again with the next look
        if sent:
            self._lent |= {each.connection.id: each for each in lent}
        else:
            for each in lent:
                each.take_back()
        return sent

    def _hear(self) -> None:
        if self._pipe is None:
            return
        try:
            packet = self._pipe.receive()
        except Closed:
            self._ended()
            self._changed()
            return
        if packet is not None:
            self._loop.call_soon(self._hear)  # see Heir._hear
            for number in _numbers(packet.body.get("taken")):
                self._let_go(number)
            for number in _numbers(packet.body.get("refused")):
                if number in self._lent:
                    self.refused.append(self._lent[number].connection.remote)
                self._return(number)
            self._changed()

    def _let_go(self, number: int) -> None:
        lent = self._lent.pop(number, None)
        if lent is None:
            return
        self.moved += 1
        lent.transport.set_protocol(asyncio.Protocol())  # the app is told nothing
        lent.transport.abort()  # closes this descriptor; the other one is the connection now
        self._gone(lent.connection)

    def _return(self, number: int) -> None:
        lent = self._lent.pop(number, None)
        if lent is not None:
            lent.take_back()

    def _ended(self) -> None:
        """The heir has gone; what it has not answered is served here."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._loop.remove_reader(pipe.fileno())
            pipe.close()
        for number in list(self._lent):
            self._return(number)


class Heir:
    """The new worker's side. *adopt* gets id, state, unread bytes and socket of each."""

    def __init__(self, adopt: Adopt) -> None:
        self._adopt = adopt
        self._pipes: set[Channel] = set()
        self._loop = asyncio.get_running_loop()

    def open(self, fd: int) -> None:
        """Take what comes from the giver at the other end of this pipe."""
        pipe = Channel.of_fd(fd)
        pipe.socket.setblocking(False)
        self._pipes.add(pipe)
        self._loop.add_reader(fd, self._hear, pipe)

    def _hear(self, pipe: Channel) -> None:
        """Read one message, and look once more: to its end, if the other side is gone.

        If that left something unread it is an error of the descriptor (ECONNRESET), about which
        libuv tells once and never again, however much stands behind it.
        """
        if pipe not in self._pipes:
            return
        try:
            packet = pipe.receive()
        except Closed:
            self._close(pipe)
            return
        if packet is not None:
            self._loop.call_soon(self._hear, pipe)
            self._take(pipe, packet)
        elif pipe.bad:
            self._close(pipe)  # not a procd that we understand: it keeps its connections

    def _take(self, pipe: Channel, packet: Packet) -> None:
        try:
            heirlooms = [_parsed(item) for item in _listed(packet.body.get("items"))]
        except ValueError as error:
            logs.error("connections not adopted", why=error)
            close_fds(packet.fds)
            self._close(pipe)
            return
        sockets = [socket.socket(fileno=fd) for fd in packet.fds]
        # Out of descriptors the kernel delivers the first ones only.
        numbers = [number for number, _, _ in heirlooms]
        answer: dict[str, object] = {
            "taken": numbers[: len(sockets)],
            "refused": numbers[len(sockets) :],
        }
        pipe.send("adopted", answer)  # if the giver has died they are ours all the same
        for (number, state, unread), sock in zip(heirlooms, sockets, strict=False):
            sock.setblocking(False)
            self._adopt(number, state, unread, sock)

    def _close(self, pipe: Channel) -> None:
        self._pipes.discard(pipe)
        self._loop.remove_reader(pipe.fileno())
        pipe.close()

    def close(self) -> None:
        """Take no more: what is in the pipes goes to another heir."""
        for pipe in list(self._pipes):
            self._close(pipe)


def close_fds(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _first(offers: Sequence[Offer], count: int) -> Sequence[Offer]:
    """Return as many of the first *count* as one message takes."""
    size = 0
    for index, offer in enumerate(offers[:count]):
        size += len(offer.state) + offer.connection.unread_bytes
        if index and size > BATCH_BYTES:
            return offers[:index]
    return offers[:count]


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _numbers(value: object) -> list[int]:
    return [number for number in _listed(value) if isinstance(number, int)]


def _parsed(item: object) -> tuple[int, object, bytes]:
    """Return id, state and unread bytes; raises ValueError."""
    match item:
        case [int(number), bytes(state), bytes(unread)]:
            return number, wire.unpack(state), unread
        case _:
            raise ValueError(f"no connection: {item!r:.80}")
