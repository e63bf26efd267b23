"""The master's token queue: made at each start, and made anew when somebody removes it.

Its key is kept for the master's life, so that the processes find a new queue by the key
they know. Key and id stand in the lease file: a queue outlives its processes, and the next
master removes the one that a killed one left, if it is still the very same.
"""

from __future__ import annotations

from contextlib import suppress

from procd import logs
from procd.linux.sysv import MessageQueue, QueueError, QueueGone
from procd.master.lease import Lease


class TokenQueue:
    """*owner* is uid and gid of the processes, None = the master's own."""

    def __init__(self, lease: Lease, owner: tuple[int, int] | None = None) -> None:
        self._lease = lease
        self._owner = owner
        key, number = lease.queue
        if key:
            with suppress(QueueError):
                old = MessageQueue.open(key)
                if old.id == number:
                    old.remove()
        self.queue = MessageQueue.create()
        self._hand_over()

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
        """Make it anew under its key; False (and said) while somebody else has that key."""
        try:
            self.queue = MessageQueue.create_key(self.queue.key)
        except QueueError as error:
            logs.error("task queue not made anew", why=error)
            return False
        self._hand_over()
        logs.warning("task queue was removed by somebody: made anew", key=hex(self.queue.key))
        return True

    def remove(self) -> None:
        with suppress(QueueError):
            self.queue.remove()
        self._lease.note_queue(0, 0)
