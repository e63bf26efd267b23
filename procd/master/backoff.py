"""How long a seat that loses its processes has to wait for the next one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

STEADY_SECONDS = 5.0  # alive so long: its earlier deaths are forgotten
FIRST_DELAY, MAX_DELAY = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a seat has lost its process of late, and when it may have the next one."""

    deaths: int = 0
    not_before: float = -inf

    def after_death(self, lived: float, now: float) -> Backoff:
        """The first death restarts at once, then the delay doubles up to a cap."""
        deaths = 1 if lived >= STEADY_SECONDS else self.deaths + 1
        delay = 0.0 if deaths == 1 else min(MAX_DELAY, FIRST_DELAY * 2 ** min(deaths - 2, 30))
        return Backoff(deaths, now + delay)
