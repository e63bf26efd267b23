"""Accepting on the inherited listeners.

An accept loop of our own: asyncio's Server.close() resets a connection that was accepted
just before. The listeners are the master's; a worker only stops to look at them, so their
backlog waits for the next one.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable, Collection, Sequence

from procd import logs

BATCH = 8  # accepted in one turn: others should get some too
COMPLAINT_SECONDS = 10.0  # between two lines in the log about the same want
PAUSE_SECONDS = 0.1  # after a failure that the next accept would meet as well


class Acceptor:
    """*take* gets each accepted socket, non-blocking; *has_room* is asked before."""

    def __init__(
        self,
        fds: Sequence[int],
        take: Callable[[socket.socket], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._listeners = {fd: socket.socket(fileno=fd) for fd in fds}
        self._take = take
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._epoll: select.epoll | None = None
        self._complained = -COMPLAINT_SECONDS

    def start(self) -> None:
        """Accept from now on. One new client wakes one worker, not all."""
        if self._epoll is None:
            self._epoll = select.epoll()
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            self._loop.add_reader(self._epoll.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more; start() goes on."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def close(self, leaving: Collection[object] = ()) -> None:
        """Let the listeners go; those at the indices *leaving* are to be emptied first."""
        self.stop()
        listeners, self._listeners = list(self._listeners.values()), {}
        for index, listener in enumerate(listeners):
            if index in leaving:
                self.empty(listener)
            listener.close()

    def empty(self, listener: socket.socket) -> None:
        """Accept all that a listener holds which leaves the service, room or not.

        What is in its backlog when its last descriptor closes is reset: empty before closing.
        """
        while self._accept_one(listener):
            pass

    def _accept(self) -> None:
        if self._epoll is None:
            return
        for fd, _ in self._epoll.poll(0):
            for _ in range(BATCH):
                if not self._has_room():
                    self.stop()
                    return
                if not self._accept_one(self._listeners[fd]):
                    break

    def _accept_one(self, listener: socket.socket) -> bool:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            # Out of descriptors or memory: the client stays in the backlog meanwhile.
            self._complain(errno.errorcode.get(error.errno or 0, "?"))
            self.stop()
            self._loop.call_later(PAUSE_SECONDS, self._resume)
            return False
        client.setblocking(False)
        self._take(client)
        return True

    def _complain(self, name: str) -> None:
        now = self._loop.time()
        if now - self._complained > COMPLAINT_SECONDS:
            self._complained = now
            logs.error("accept failed", error=name, cure="raise LimitNOFILE or lower max_conn")

    def _resume(self) -> None:
        if self._listeners:
            self.start()
