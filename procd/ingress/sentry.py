"""The sentry: says on a descriptor that a message is there, without taking it.

A message queue has no descriptor, and to look at it again and again costs time while nothing
comes. So a thread waits in msgrcv(2) for a message larger than 0 bytes, which leaves it in the
queue. The one thread of procd: the ingress never forks, and nobody ever waits for this thread,
which the end of the process ends.
"""

from __future__ import annotations

import os
from queue import SimpleQueue
from threading import Thread

from procd.ipc.foreign.message import LARGEST_TASK_TYPE
from procd.linux import sysvraw
from procd.linux.sysv import MessageQueue, QueueError

Report = int | QueueError | None  # the type of an empty message that was taken; why none comes


class Sentry:
    """fileno() becomes readable when what arm() asked for has happened."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._orders: SimpleQueue[MessageQueue] = SimpleQueue()
        self._reports: SimpleQueue[Report] = SimpleQueue()
        self._is_armed = False
        Thread(target=self._watch, daemon=True).start()

    def fileno(self) -> int:
        return self._fd

    def arm(self, queue: MessageQueue) -> None:
        """Have the next message in *queue* that could be a task reported, once.

        Nothing happens while an earlier order stands: a queue that is gone ends its own.
        """
        if not self._is_armed:
            self._is_armed = True
            self._orders.put(queue)

    def report(self) -> Report:
        """Return what has happened; call it when the descriptor is readable."""
        os.eventfd_read(self._fd)
        self._is_armed = False
        return self._reports.get()

    def _watch(self) -> None:
        while True:
            queue = self._orders.get()
            try:
                report: Report = sysvraw.wait_for(queue, -LARGEST_TASK_TYPE)
            except QueueError as error:
                report = error
            self._reports.put(report)
            os.eventfd_write(self._fd, 1)
