"""The line from a program to a service: a thread that connects, sends and receives.

The program's own threads and event loops only leave tasks here and wait for promises, so that a
slow service, a large task or a result that comes at a bad time holds up none of them. The line
connects when there is something to send, and again after a connection has ended; it leaves
one that has been idle for a while.

After a fork the child begins anew, without the thread: what the parent sent is the parent's.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from math import inf
from pathlib import Path

from procd.client.link import Broken, Link
from procd.client.sent import Sent
from procd.config.load import load
from procd.errors import ConfigError, ConnectionLost, NotRunning, ProcdError
from procd.ipc import frames
from procd.service import record

IDLE_SECONDS = 60.0
RETRY_SECONDS = 0.05  # between two tries to connect
CLOSE_SECONDS = 5.0
TRIES = 3  # connections that a task may see end before all of it is sent


class Line:
    """*connect_seconds* is how long a service may take to let the program in."""

    def __init__(self, config_path: Path, connect_seconds: float) -> None:
        self._config_path = config_path
        self._connect_seconds = connect_seconds
        self._begin()

    def _begin(self) -> None:
        # Reentrant: a finaliser may run wherever memory is taken, also in here.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._is_closed = False
        self._new: deque[Sent] = deque()
        self._link: Link | None = None
        self._retry_at = self._give_up_at = self._idle_at = inf

    # Any thread's

    def submit(self, sent: Sent) -> None:
        """Have a task sent; its promises tell the rest. Raises ConnectionLost if closed."""
        with self._lock:
            if self._is_closed:
                raise ConnectionLost("this client is closed")
            self._new.append(sent)
            if self._thread is None:
                self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._thread = threading.Thread(target=self._run, name="procd client", daemon=True)
                self._thread.start()
            else:
                os.eventfd_write(self._wake, 1)

    def close(self, *, wait: bool = True) -> None:
        """Leave the service. Results that have not come are not to be had any more."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            if thread is not None:
                os.eventfd_write(self._wake, 1)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def abandon(self) -> None:
        """In a forked child: the parent has the thread, and the connection goes on there."""
        link, wake, is_closed = self._link, self._wake, self._is_closed
        self._begin()
        self._is_closed = is_closed
        if wake >= 0:
            os.close(wake)
        if link is not None:
            link.socket.close()  # ours of the two: nobody is told

    # The thread's

    def _run(self) -> None:
        error: Exception = ConnectionLost("this client was closed before it was sent")
        try:
            while not self._is_closed:
                self._turn()
        except Exception as fault:
            error = ConnectionLost(f"a fault in the client: {fault!r}")
            raise
        finally:
            with self._lock:
                self._lose(error)
                os.close(self._wake)
                self._wake, self._thread = -1, None

    def _turn(self) -> None:
        now = time.monotonic()
        link = self._link
        if self._new and link is None and (self._retry_at == inf or now >= self._retry_at):
            link = self._connect(now)
        while self._new and link is not None:
            link.unsent.append(self._new.popleft())
        try:
            if link is not None:
                self._idle_at = now + IDLE_SECONDS if link.is_idle else inf
                link.flush()
            self._wait(link)
            if link is not None:
                self._look_at(link, time.monotonic())
        except Broken:
            self._broken()
        except ProcdError as error:
            self._lose(error)

    def _wait(self, link: Link | None) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if link is not None:
            poll.register(link.socket, link.wanted())
        due = min(self._idle_at, self._retry_at, self._give_up_at)
        seconds = None if due == inf else max(0.0, due - time.monotonic()) * 1000 + 1
        for fd, _ in poll.poll(seconds):
            if fd == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif link is not None:
                link.receive()

    def _look_at(self, link: Link, now: float) -> None:
        if link.max_bytes is not None:
            self._give_up_at = inf
        elif now >= self._give_up_at:
            raise NotRunning(f"the service does not let anybody in: see the log of {self._service}")
        if link.is_idle and not self._new and now >= self._idle_at:
            self._leave()

    def _connect(self, now: float) -> Link | None:
        """Return a connection; None if it is to be tried again, or nothing is left to send."""
        self._retry_at = inf
        self._give_up_at = min(self._give_up_at, now + self._connect_seconds)
        try:
            self._link = Link(_knock(self._config_path))
        except BlockingIOError:  # many others knock just now
            if now < self._give_up_at:
                self._retry_at = now + RETRY_SECONDS
                return None
            self._lose(NotRunning(f"{self._service} is too busy to let anybody in"))
        except ProcdError as error:
            self._lose(error)
        return self._link

    @property
    def _service(self) -> str:
        return f"the service of {self._config_path}"

    def _broken(self) -> None:
        """The connection has ended: what is not with the gate is sent on the next one."""
        link = self._link
        self._leave()
        now = time.monotonic()
        if link is None or not link.unsent:
            self._retry_at = self._give_up_at = inf
            return
        greeted = link.max_bytes is not None
        for sent in reversed(link.unsent):
            sent.tries += greeted
            if sent.tries < TRIES and now < self._give_up_at:
                self._new.appendleft(sent)
            else:
                sent.fail(ConnectionLost(f"{self._service} went before it was sent"))
        if not greeted:
            self._retry_at = now + RETRY_SECONDS

    def _leave(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link, self._idle_at = None, inf

    def _lose(self, error: Exception) -> None:
        """Nothing that waits will be sent."""
        waiting = [*(self._link.unsent if self._link is not None else ())]
        self._leave()
        while self._new:
            waiting.append(self._new.popleft())
        for sent in waiting:
            sent.fail(error)
        self._retry_at = self._give_up_at = inf


def _knock(config_path: Path) -> socket.socket:
    """Return a socket that is connected to a service; raises NotRunning, BlockingIOError."""
    path = _run_dir(config_path) / "ipc" / frames.SOCKET
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(str(path))
    except BlockingIOError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
            raise NotRunning(f"no procd runs for {config_path}") from None
        if error.errno == errno.EACCES:
            raise ProcdError(f"{path} serves root and the user of the service only") from None
        raise ProcdError(f"{path}: {error.strerror or error}") from None
    return sock


def _run_dir(config_path: Path) -> Path:
    found = record.read(config_path)
    if found is not None and found.alive:
        return found.run_dir
    try:
        return load(config_path).run_dir
    except ConfigError:
        raise NotRunning(f"no procd runs for {config_path}, which is not valid either") from None
