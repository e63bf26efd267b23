"""The master's token queue: made at each start, and made anew when somebody removes it.

Its key is kept for the master's life, so that the processes find a new queue by the key
they know. Key and id stand in the lease file: a queue outlives its processes, and the next
master removes the one that a killed one left, if it is still the very same. The key is
noted before the queue is made, so that no moment is left in which a kill leaks one.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from procd import logs
from procd.linux.sysv import MessageQueue, QueueError, QueueExists, QueueGone
from procd.master.lease import Lease

UNKNOWN = -1  # the id of a queue that is about to be made


class TokenQueue:
    """*owner* is uid and gid of the processes, None = the master's own."""

    def __init__(self, lease: Lease, owner: tuple[int, int] | None = None) -> None:
        self._lease = lease
        self._owner = owner
        self._trouble = ""
        key, number = lease.queue
        if key:
            with suppress(QueueError):
                old = MessageQueue.open(key)
                if old.id == number or (number == UNKNOWN and _is_unused(old)):
                    old.remove()
        self.queue = self._make()
        self._hand_over()

    def _make(self) -> MessageQueue:
        while True:
            # sysv_ipc's own choice (key=None) picks from 32,766 keys only.
            key = 1 + secrets.randbelow(2**31 - 1)
            self._lease.note_queue(key, UNKNOWN)
            with suppress(QueueExists):
                return MessageQueue.create_key(key)

    def _hand_over(self) -> None:
        if self._owner is not None:
            self.queue.give_to(*self._owner)
        self._lease.note_queue(self.queue.key, self.queue.id)

    @property
    def key(self) -> int:
        return self.queue.key

    def is_gone(self) -> bool:
        """Tell whether somebody has removed it."""
        try:
            return self.queue.messages < 0
        except QueueGone:
            return True
        except QueueError:
            return False

    def remake(self) -> bool:
        """Make it anew under its key; False (and said once) while somebody else has that key."""
        self._lease.note_queue(self.queue.key, UNKNOWN)
        try:
            self.queue = MessageQueue.create_key(self.queue.key)
            self._hand_over()
        except QueueError as error:
            if str(error) != self._trouble:
                logs.error("task queue not made anew", why=error)
            self._trouble = str(error)
            return False
        self._trouble = ""
        logs.warning("task queue was removed by somebody: made anew", key=hex(self.queue.key))
        return True

    def remove(self) -> None:
        with suppress(QueueError):
            self.queue.remove()
        self._lease.note_queue(0, 0)


def _is_unused(queue: MessageQueue) -> bool:
    """Tell whether a queue is ours and was never sent to: its maker died just then."""
    return queue.creator_uid == os.geteuid() and not queue.messages and not queue.last_send
