"""The doorbell: wakes one sleeping task worker for each task in the queue.

An eventfd with EFD_SEMAPHORE, rung after each msgsnd. It gives the task worker one epoll
wait for tasks, messages and the master's word, which a blocking msgrcv cannot (and a
signal just before that call blocks is lost). A ring too many costs one ENOMSG; a ring too
few would leave a task lying, so the master rings again after every death.
"""

from __future__ import annotations

import os
import select


class Bell:
    """Wakes one process: the ledger. However often it is rung, it is answered once."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def answer(self) -> bool:
        """Tell whether it was rung since the last time."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True


class Doorbell:
    """Made once by the master, inherited by everybody."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self, times: int = 1) -> None:
        if times > 0:
            os.eventfd_write(self.fd, times)

    def answer(self) -> bool:
        """Take one ring; False when somebody else was quicker."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def wait_in(self, epoll: select.epoll) -> None:
        """Register so that one ring wakes one waiter and not all of them."""
        epoll.register(self.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
