"""The master's loop: one selector, real deadlines, no wake-up without a reason.

No threads and no asyncio: a forked child that unregisters a descriptor of an inherited
event loop empties the parent's.
"""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable
from math import inf
from typing import Protocol

LONGEST_SECONDS = 86400.0
Callback = Callable[[], None]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Loop:
    """Waits for descriptors, signals and one deadline."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        # Signals arrive as bytes on a socket, so that none is lost between a check and a wait.
        self._signals, writer = socket.socketpair()
        self._signals.setblocking(False)
        writer.setblocking(False)
        self._writer = writer
        self._selector.register(self._signals, selectors.EVENT_READ, None)

    def catch(self, signums: set[signal.Signals]) -> None:
        """Have these signals returned by wait()."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for signum in signums:
            signal.signal(signum, _woken)

    def read(self, where: int | HasFileno, callback: Callback) -> None:
        """Call *callback* whenever there is something to read."""
        self._selector.register(where, selectors.EVENT_READ, callback)

    def write(self, where: int | HasFileno, callback: Callback) -> None:
        """Call *callback* when it can be written, instead of read."""
        self._selector.modify(where, selectors.EVENT_WRITE, callback)

    def forget(self, where: int | HasFileno) -> None:
        self._selector.unregister(where)

    def wait(self, seconds: float) -> tuple[set[int], list[Callback]]:
        """Wait at most so long (inf = for ever); return signals and callbacks that are due."""
        # epoll_wait(2) takes 2**31 ms at most; a config may say a year.
        limit = None if seconds == inf else min(max(0.0, seconds), LONGEST_SECONDS)
        found = self._selector.select(limit)
        signums: set[int] = set()
        callbacks = []
        for key, _ in found:
            if key.data is None:
                signums |= self._drain()
            else:
                callbacks.append(key.data)
        return signums, callbacks

    def _drain(self) -> set[int]:
        signums: set[int] = set()
        try:
            while data := self._signals.recv(4096):
                signums |= set(data)
        except BlockingIOError:
            pass
        return signums


def _woken(signum: int, frame: object) -> None:
    """Do nothing: the wakeup descriptor has the signal's number."""
