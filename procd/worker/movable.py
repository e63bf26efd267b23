"""May this connection go to another process? A connection moves only if nobody can tell.

Whoever else holds the Connection (a dict of the app, a task, a frame, a callback that has
not run yet) would go on with one that is dead here. What is held is therefore counted, and
compared with the count of a connection that surely nobody holds: one of our own, through
the same code, on the event loop in use. An app that has on_resume says that it can cope.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import weakref
from typing import NamedTuple

from procd.ipc import wire
from procd.worker.connection import Connection, Owner

MAX_BYTES = 96 * 1024  # of state and unread bytes: a message of a pipe carries them whole

HELD = "the app holds them"
NOT_PLAIN = "conn.state cannot be sent"
NOT_SAME = "conn.state would come back changed"
TOO_LARGE = "conn.state is too large"
UNREAD = "much is unread"


class Holds(NamedTuple):
    """How often a connection and its state are referred to."""

    strong: int
    weak: int
    state: int


class Stays(Exception):
    """A connection cannot move: *why*, in words to search for, and what in particular."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why, detail)
        self.why = why
        self.detail = detail


def holds(connections: list[Connection], index: int) -> Holds:
    """Count who holds one of *connections*, which a set of the worker's holds as well.

    Not by a variable of its own: that would count, too.
    """
    return Holds(
        sys.getrefcount(connections[index]),
        weakref.getweakrefcount(connections[index]),
        sys.getrefcount(connections[index].state),
    )


async def holds_of_nobody(owner: Owner) -> Holds:
    """Return what holds() says of a connection that procd alone holds. Raises OSError."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, probe = await loop.connect_accepted_socket(lambda: _Probe(owner, 0, 1), ours)
        owned = {probe}
        del probe
        found = holds([*owned], 0)
        transport.set_protocol(asyncio.Protocol())
        transport.close()
    return found


class _Probe(Connection):
    """Known to no handler of the app."""

    _begins = ""


def packed(state: object) -> bytes:
    """Return a connection's state as it travels; raises Stays.

    It must come back the same, types included: a tuple would be a list.
    """
    try:
        data = wire.pack(state)
    except TypeError as error:
        raise Stays(NOT_PLAIN, str(error)) from None
    if len(data) > MAX_BYTES:
        raise Stays(TOO_LARGE, f"{len(data)} bytes of {MAX_BYTES}")
    different = _difference(state, wire.unpack(data), "state")
    if different:
        raise Stays(NOT_SAME, different)
    return data


def _difference(sent: object, back: object, where: str) -> str:
    """Return the first part that is not the same; empty = none."""
    if type(sent) is not type(back):
        return f"{where}: {type(sent).__name__}"
    if isinstance(sent, dict) and isinstance(back, dict) and sent.keys() == back.keys():
        # The order of a dict survives, and equal keys may differ in type (1, True).
        for key, twin in zip(sent, back, strict=True):
            found = _difference(key, twin, f"key {key!r:.40} of {where}")
            found = found or _difference(sent[key], back[twin], f"{where}[{key!r:.40}]")
            if found:
                return found
        return ""
    if isinstance(sent, list) and isinstance(back, list) and len(sent) == len(back):
        pairs = enumerate(zip(sent, back, strict=True))
        texts = (_difference(one, two, f"{where}[{index}]") for index, (one, two) in pairs)
        return next((text for text in texts if text), "")
    return "" if sent == back else f"{where}: {sent!r:.40}"
