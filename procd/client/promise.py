"""Something that comes once, from another thread: waited for by threads and by event loops.

Without a lock, so that a fork never copies one that is held: it builds on deque.append and popleft
being whole for themselves.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Promise(Generic[T]):
    """A value or an error."""

    __slots__ = ("_error", "_value", "_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiters: deque[Callable[[], object]] = deque()

    @property
    def is_come(self) -> bool:
        """Tell whether there is a value."""
        return self.is_set and self._error is None

    def set(self, value: T) -> None:
        """Have it come; what comes first counts, value or error."""
        if not self.is_set:
            self._value, self.is_set = value, True
            self._tell()

    def fail(self, error: Exception) -> None:
        if not self.is_set:
            self._error, self.is_set = error, True
            self._tell()

    def get(self) -> T:
        """Return the value, or raise the error: a new one each time, for it collects frames."""
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        return cast("T", self._value)

    def drop(self, value: T) -> None:
        """Put something small in the place of a value that nobody needs any more."""
        self._value = value

    def then(self, call: Callable[[], object]) -> None:
        """Have *call* called, by whichever thread, once this is set."""
        self._waiters.append(call)
        if self.is_set:  # perhaps since before the append: then nobody else has called it
            self._tell()

    def _tell(self) -> None:
        while self._waiters:
            with suppress(IndexError):  # another thread was quicker
                self._waiters.popleft()()

    def wait(self, seconds: float | None) -> bool:
        """Block until it is set; False if it is not in time."""
        if self.is_set:
            return True
        event = threading.Event()
        self.then(event.set)
        return event.wait(seconds)

    async def come(self) -> T:
        """Wait on an event loop; return the value, or raise the error."""
        if not self.is_set:
            # Here, because a program without an event loop has no use for it.
            import asyncio

            loop = asyncio.get_running_loop()
            come: asyncio.Future[None] = loop.create_future()

            def tell() -> None:
                if not come.done():
                    come.set_result(None)

            def wake() -> None:
                with suppress(RuntimeError):  # that loop is closed: nobody waits there
                    loop.call_soon_threadsafe(tell)

            self.then(wake)
            await come
        return self.get()
