"""When a burst of changes is over. Pure: the time comes in."""

from __future__ import annotations

from dataclasses import dataclass

QUIET = 0.010  # an editor's save is several events, a checkout thousands
LIMIT = 0.500  # but who keeps writing must not put the reload off for ever


@dataclass(slots=True)
class Debounce:
    """Waits until nothing came for *quiet* seconds, at most *limit* after the first touch.

    A first touch that is whole (a file was closed, or moved into its place) is acted on at
    once: the quiet can be waited for while what comes of it boots. disturbed() says that it was
    too short, and doubles it; calm() sets it back.
    """

    quiet: float = QUIET
    limit: float = LIMIT
    _first: float | None = None
    _last: float = 0.0
    _at_once: bool = False

    def touch(self, now: float, *, at_once: bool = False) -> None:
        """Note that something changed."""
        self._at_once = at_once and self._first is None
        if self._first is None:
            self._first = now
        self._last = now

    def disturbed(self) -> None:
        """More came than was waited for: a checkout pauses now and then."""
        self.quiet = min(2 * self.quiet, self.limit)

    def calm(self) -> None:
        """A burst is over, whatever came of it."""
        self.quiet = QUIET

    def due(self) -> float | None:
        """Return when to act, None while there is nothing to act on."""
        if self._first is None or self._at_once:
            return self._first
        return min(self._last + self.quiet, self._first + self.limit)

    def fired(self, now: float) -> None:
        """Note that all touches up to *now* have been acted on."""
        if self._last <= now:
            self._first = None
        elif self._first is not None:
            self._first = self._last
