"""How far a task is, as it tells itself: lossy, and in nobody's way.

The telling side sends small datagrams to the dispatcher's inbox, and never waits: what is told
within a hundredth of a second of the one before is held back, and only the last of those goes
out, with the next or at the end. The listening side keeps the last few.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from procd.errors import InboxFull
from procd.ipc import inbox
from procd.ipc.inbox import Gone, Post

PAUSE_SECONDS = 0.01
KEPT = 64  # values that one who listens has not taken yet


class Telling:
    """A running task's voice."""

    def __init__(self, post: Post, token: int, row: int, incarnation: int) -> None:
        self._post = post
        self._token = token
        self._to = row, incarnation
        self._next = 0.0
        self._held: bytes | None = None

    def tell(self, value: object) -> None:
        """Raises TypeError, MessageTooBig for what cannot be told."""
        self._held = inbox.progress(self._token, value)
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Send what was held back."""
        if self._held is not None:
            with suppress(InboxFull, Gone):
                self._post.send(*self._to, self._held)
            self._held = None
            self._next = time.monotonic() + PAUSE_SECONDS


class Listening:
    """What one task has told, for all who want to hear it."""

    def __init__(self) -> None:
        self._last: list[object] = []  # none or one: who comes later begins with it
        self._ears: list[tuple[deque[object], asyncio.Event]] = []

    def tell(self, value: object) -> None:
        self._last = [value]
        for values, event in self._ears:
            values.append(value)
            event.set()

    def end(self) -> None:
        """The task is over."""
        for _, event in self._ears:
            event.set()

    async def values(self, is_over: Callable[[], bool]) -> AsyncIterator[object]:
        ear = deque(self._last, KEPT), asyncio.Event()
        self._ears.append(ear)
        try:
            while True:
                while ear[0]:
                    yield ear[0].popleft()
                if is_over():
                    return
                ear[1].clear()
                await ear[1].wait()
        finally:
            self._ears.remove(ear)
