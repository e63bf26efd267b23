"""The token queue as workers and task workers hold it.

A token is 8 bytes; whatever else lies in the queue is dropped and counted. A queue that
somebody removed is opened again by its key, and until the master has made it anew it
counts as full and as empty: nothing that was accepted depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from procd.ipc.layout import WORD
from procd.linux.sysv import MessageQueue, QueueEmpty, QueueError, QueueFull

MOST_URGENT = -9  # the lowest message type up to 9 first
OLDEST = 0
OLDEST_EACH = 16  # receives: how soon the oldest token has its turn, whatever its priority


class Tokens:
    """*on_gone* is called when the queue is not there; *on_garbage* for each message dropped."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.on_gone: Callable[[], object] = lambda: None
        self.on_garbage: Callable[[], object] = lambda: None
        self._received = 0
        self._queue: MessageQueue | None = None
        with suppress(QueueError):  # gone just now: opened when it is used
            self._queue = MessageQueue.open(key)

    def send(self, token: int, priority: int) -> bool:
        """Queue a token; False when there is no room now."""
        try:
            (self._queue or self._open()).send(WORD.pack(token), priority)
        except QueueFull:
            return False
        except QueueError:
            return self._reopen() and self.send(token, priority)
        return True

    def receive(self) -> int | None:
        """Take the next token off, of the most urgent; None when there is none.

        Now and then the oldest of all, so that urgent ones let the others have a share.
        """
        self._received += 1
        which = MOST_URGENT if self._received % OLDEST_EACH else OLDEST
        while True:
            try:
                data, _ = (self._queue or self._open()).receive(which)
            except QueueEmpty:
                return None
            except QueueError:
                if self._reopen():
                    continue
                return None
            if len(data) == WORD.size:
                token: int = WORD.unpack(data)[0]
                return token
            self.on_garbage()

    def _open(self) -> MessageQueue:
        if self._queue is None:
            self._queue = MessageQueue.open(self.key)
        return self._queue

    def _reopen(self) -> bool:
        """Open the queue by its key if it is another one by now."""
        old, self._queue = self._queue, None
        with suppress(QueueError):
            self._queue = MessageQueue.open(self.key)
        if self._queue is None or (old is not None and self._queue.id == old.id):
            self.on_gone()  # or it is there, and refuses us
            return False
        return True
