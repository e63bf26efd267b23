"""How much one process may write into the log. Pure.

Lines and bytes a second, with a burst of some seconds' worth. What is beyond is counted, and
said now and then, and when it is over.
"""

from __future__ import annotations

from math import inf

BURST_SECONDS = 5.0
REPORT_SECONDS = 10.0  # between two reports of one flood
QUIET_SECONDS = 1.0  # without a line held back: the flood is over
LINE_BYTES = 1024  # on an average: 1,000 lines a second may have 1 MB


class Budget:
    """*rate*: lines a second, None = as many as come."""

    def __init__(self, rate: int | None, now: float) -> None:
        self.held = 0  # lines not reported yet
        self.total = 0  # lines held back in all
        self._began = self._last = 0.0
        self.limit(rate, now)

    def limit(self, rate: int | None, now: float) -> None:
        """Go on with another rate; a burst comes with it."""
        self.rate = rate
        self._lines = 0.0 if rate is None else rate * BURST_SECONDS
        self._bytes = self._lines * LINE_BYTES
        self._filled = now

    def lines(self, now: float) -> int:
        """Return how many lines may pass now, if they are not too long."""
        if self.rate is None:
            return 1 << 30
        passed, self._filled = max(0.0, now - self._filled), now
        most = self.rate * BURST_SECONDS
        self._lines = min(most, self._lines + passed * self.rate)
        self._bytes = min(most * LINE_BYTES, self._bytes + passed * self.rate * LINE_BYTES)
        return int(self._lines) if self._bytes > 0 else 0

    def take(self, size: int) -> bool:
        """Let one line pass, of *size* bytes; False if there is no room for it."""
        if self.rate is None:
            return True
        if self._lines < 1 or self._bytes <= 0:
            return False
        self._lines -= 1
        self._bytes -= size
        return True

    def hold(self, lines: int, now: float) -> None:
        """So many lines are held back."""
        if not lines:
            return
        if not self.held:
            self._began = now
        self.held += lines
        self.total += lines
        self._last = now

    @property
    def due(self) -> float:
        """When a report is due; inf = nothing to report."""
        if not self.held:
            return inf
        return min(self._began + REPORT_SECONDS, self._last + QUIET_SECONDS)

    def report(self, now: float) -> tuple[int, float]:
        """Return how many lines were held back, in how many seconds; and begin anew."""
        found = self.held, max(0.1, now - self._began)
        self.held = 0
        return found
