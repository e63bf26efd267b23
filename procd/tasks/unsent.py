"""Tokens that found no room in the queue: kept in order, the most urgent in front.

Now and then the oldest goes first whatever its priority, as it does at the queue's other end: else
a stream of urgent ones would keep the others here for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

OLDEST_EACH = 16  # sends


class Unsent:
    """What one process has still to send."""

    def __init__(self) -> None:
        self.waiting: dict[int, deque[tuple[int, int]]] = {}  # by priority: number, token
        self._added = 0
        self._sent = 0

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def holds_up(self, priority: int) -> bool:
        """Tell whether one of this priority must wait behind others."""
        return bool(self.waiting) and min(self.waiting) <= priority

    def add(self, token: int, priority: int) -> None:
        self._added += 1
        self.waiting.setdefault(priority, deque()).append((self._added, token))

    def send(self, try_send: Callable[[int, int], bool]) -> None:
        """Send as many as find room."""
        while self.waiting:
            priority = self._next()
            tokens = self.waiting[priority]
            if not try_send(tokens[0][1], priority):
                return
            self._sent += 1
            tokens.popleft()
            if not tokens:
                del self.waiting[priority]

    def _next(self) -> int:
        if (self._sent + 1) % OLDEST_EACH:
            return min(self.waiting)
        return min(self.waiting, key=lambda priority: self.waiting[priority][0])
