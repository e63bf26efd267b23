"""How a call waits for a queue, which has no descriptor: how often it looks, and how long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_05, 0.01


class Patience:
    """The pauses of one waiting call of up to *timeout* seconds, None = for ever, 0 = no wait."""

    __slots__ = ("_deadline", "_pause")

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:  # also what is not a number at all
            raise ValueError(f"timeout is {timeout}: seconds, or None for no limit")
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    def pause(self) -> float | None:
        """Seconds to sleep before the next look, the last one just when the time is up.

        None: give up.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            return None
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return pause


def wait(call: Callable[[], T], refused: type[Exception], timeout: float | None) -> T:
    """Return what *call* returns; while it raises *refused*, again and again up to *timeout*."""
    patience = Patience(timeout)
    while True:
        try:
            return call()
        except refused:
            if (pause := patience.pause()) is None:
                raise
        time.sleep(pause)


async def wait_async(call: Callable[[], T], refused: type[Exception], timeout: float | None) -> T:
    """As wait(), while the event loop turns on. Cancelled, it has not had *call* return."""
    # Here, because the master imports this room and has no use for an event loop.
    import asyncio

    patience = Patience(timeout)
    while True:
        try:
            return call()
        except refused:
            if (pause := patience.pause()) is None:
                raise
        await asyncio.sleep(pause)
