"""When a process has taken so much memory that another should take its place.

It asks before it has all that it may have: while its successor boots it serves on, and grows on.
What it shares with others is theirs as well, so PSS is what counts; but to read that costs
milliseconds for each gigabyte. So RSS is looked at, less what was last seen to be shared.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from math import inf

from procd import logs
from procd.linux import process

Tell = Callable[[str, dict[str, object]], object]

LOOK_SECONDS = 0.01  # between two looks, however many requests there are
IDLE_SECONDS = 1.0  # between two where there are none: the app may do things by itself
SHARED_SECONDS = 30.0  # so long what is shared is taken for what it was
AGAIN_SECONDS = 30.0  # who does not serve yet is not heard
LEAD_SECONDS = 1.0  # a successor should be ready by then
MARGINS = 0.1, 0.5  # of the room there is: kept at least, and at most


def margin(room: int, rate: float) -> int:
    """Return how many bytes below its limit a process asks that grows by *rate* bytes a second."""
    least, most = (int(room * share) for share in MARGINS)
    return min(max(int(rate * LEAD_SECONDS), least), most)


def watched(
    most_bytes: int | None,
    tell: Tell,
    call_later: Callable[[float, Callable[[], None]], object],
) -> Callable[[], None]:
    """Have the master told once, when this process should go; return what to call often."""
    return (lambda: None) if most_bytes is None else MemoryLimit(most_bytes, tell, call_later).look


class MemoryLimit:
    """*tell* is how the master is told to replace this process; *call_later* is the loop's."""

    def __init__(
        self,
        most_bytes: int,
        tell: Tell,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._tell = tell
        self._call_later = call_later
        self._rss, pss = process.own_rss(), process.own_pss()
        self._shared = self._rss - pss
        self._seen_shared = self._seen = time.monotonic()
        self._rate = 0.0
        self._room = most_bytes - pss
        # Processes that began together should not end together.
        self._limit = most_bytes - int(random.random() * 0.05 * self._room)  # noqa: S311
        self._asked = -inf
        if self._room <= 0:
            logs.warning(
                *("max_memory is less than a process begins with: none is replaced for it",),
                pss=pss,
                max_memory=most_bytes,
            )
        else:
            self._tick()

    def _tick(self) -> None:
        self.look()
        self._call_later(IDLE_SECONDS, self._tick)

    def look(self) -> None:
        """Ask if it is time to; as often as one likes, it costs little."""
        now = time.monotonic()
        since = now - self._seen
        if self._room <= 0 or since < LOOK_SECONDS or now - self._asked < AGAIN_SECONDS:
            return
        rss = process.own_rss()
        weight = min(1.0, since / LEAD_SECONDS)
        self._rate += (max(0, rss - self._rss) / since - self._rate) * weight
        self._rss, self._seen = rss, now
        asks_at = self._limit - margin(self._room, self._rate)
        if now - self._seen_shared < SHARED_SECONDS and rss - self._shared < asks_at:
            return
        pss = process.own_pss()
        self._shared, self._seen_shared = rss - pss, now
        if pss >= asks_at:
            self._asked = now
            self._tell("retire", {"why": "max_memory"})
