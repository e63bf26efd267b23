"""Tokens that found no room in the queue: kept in order, the most urgent in front."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Unsent:
    """What one process has still to send."""

    def __init__(self) -> None:
        self.waiting: dict[int, deque[int]] = {}  # by priority; none of them empty

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def holds_up(self, priority: int) -> bool:
        """Tell whether one of this priority must wait behind others."""
        return bool(self.waiting) and min(self.waiting) <= priority

    def add(self, token: int, priority: int) -> None:
        self.waiting.setdefault(priority, deque()).append(token)

    def send(self, try_send: Callable[[int, int], bool]) -> None:
        """Send as many as find room."""
        while self.waiting:
            priority = min(self.waiting)
            tokens = self.waiting[priority]
            if not try_send(tokens[0], priority):
                return
            tokens.popleft()
            if not tokens:
                del self.waiting[priority]
