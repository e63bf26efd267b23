"""Telling a dispatcher that something has become of a task of its."""

from __future__ import annotations

from contextlib import suppress

from procd.errors import InboxFull
from procd.ipc import inbox
from procd.ipc.inbox import Gone, Post
from procd.ipc.scoreboard import Cell, Scoreboard


def tell(post: Post, scoreboard: Scoreboard, row: int, incarnation: int, token: int) -> bool:
    """Hint to a dispatcher that it should look at a slot of its; False if it is gone.

    A full inbox sets MISSED and is tried once more: either the second hint arrives, or the
    dispatcher still has to read, and looks at MISSED after that. Where it stands already nothing
    is sent: the dispatcher clears it before it looks at its slots, so it will see this one, too.
    (An inbox holds ten datagrams, net.unix.max_dgram_qlen: under load most hints go this way.)
    One that is gone needs no hint: the master frees what it left.

    The caller has made a system call since it changed the slot, and the dispatcher makes one
    between clearing and looking: neither processor can have done it the other way around.
    """
    if scoreboard.get(row, Cell.MISSED):
        return True
    datagram = inbox.hint(token)
    try:
        post.send(row, incarnation, datagram)
    except InboxFull:
        look(post, scoreboard, row, incarnation, token)
    except Gone:
        return False
    return True


def look(post: Post, scoreboard: Scoreboard, row: int, incarnation: int, token: int) -> None:
    """Have a dispatcher look at all of its slots. One that is just being made looks by itself."""
    scoreboard.set(row, Cell.MISSED, 1)
    with suppress(InboxFull, Gone):
        post.send(row, incarnation, inbox.hint(token))
