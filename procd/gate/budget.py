"""How much large data may be in the gate's memory at once, and whose turn it is. Pure.

What is small is not counted here: each session may hold some of it. Large data comes and goes
one after the other, in the order of asking, so many bytes of it at once; one alone may be larger.
Who takes too long with it loses his connection, else he would hold up the others.
"""

from __future__ import annotations

from typing import Generic, TypeVar

GRACE_SECONDS = 10.0
BYTES_A_SECOND = 1_000_000.0  # the least that a program must do, on one machine

Who = TypeVar("Who")


def seconds_for(size: int) -> float:
    """Return how long so many bytes may take."""
    return GRACE_SECONDS + size / BYTES_A_SECOND


class Budget(Generic[Who]):
    """*most* bytes for all together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: dict[Who, int] = {}
        self._waiting: dict[Who, int] = {}

    def ask(self, who: Who, size: int) -> bool:
        """Tell whether he may go on; if not, free() names him when he may."""
        if not self._waiting and self._fits(size):
            self._held[who] = size
            return True
        self._waiting[who] = size
        return False

    def holds(self, who: Who) -> bool:
        return who in self._held

    def waits(self, who: Who) -> bool:
        return who in self._waiting

    def free(self, who: Who) -> list[Who]:
        """He is through, or gone: return who may go on now."""
        self._held.pop(who, None)
        self._waiting.pop(who, None)
        turn: list[Who] = []
        while self._waiting:
            first, size = next(iter(self._waiting.items()))
            if not self._fits(size):
                break
            self._held[first] = self._waiting.pop(first)
            turn.append(first)
        return turn

    def _fits(self, size: int) -> bool:
        return not self._held or sum(self._held.values()) + size <= self.most
