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
    dispatcher still has to read, and looks at MISSED after that. One that is gone needs no
    hint: the master frees what it left.
    """
    datagram = inbox.hint(token)
    try:
        post.send(row, incarnation, datagram)
    except InboxFull:
        scoreboard.set(row, Cell.MISSED, 1)
        with suppress(InboxFull, Gone):
            post.send(row, incarnation, datagram)
    except Gone:
        return False
    return True
