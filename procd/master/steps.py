"""How long each step of a reload took. Pure: moments in, seconds out."""

from __future__ import annotations

from dataclasses import dataclass

NAMES = ("import", "fork", "ready", "switch", "drain")
MOST_CAUSES = 5  # named in a line; a checkout changes thousands of files


@dataclass(slots=True)
class Steps:
    """Moments of one attempt, in monotonic seconds; None = it has not come so far.

    A step lasts from the moment before it to its own: import (the template is forked and has
    imported the app), fork (all processes have a pid), ready (all have said so), switch (all
    accept), drain (nothing of the old generations is left).
    """

    began: float
    imported: float | None = None
    forked: float | None = None
    ready: float | None = None
    switched: float | None = None
    drained: float | None = None

    def seconds(self) -> dict[str, float]:
        """Return the steps that are over, by their names."""
        moments = (self.imported, self.forked, self.ready, self.switched, self.drained)
        found: dict[str, float] = {}
        before = self.began
        for name, moment in zip(NAMES, moments, strict=True):
            if moment is None:
                break
            # Processes are ordered while the app is imported: what overlaps counts once.
            found[name] = max(0.0, moment - before)
            before = max(before, moment)
        return found


def named(causes: tuple[str, ...]) -> str:
    """Return causes for a line: `app.py, models.py and 12 more`."""
    left = len(causes) - MOST_CAUSES
    text = ", ".join(causes[:MOST_CAUSES])
    return f"{text} and {left} more" if left > 0 else text
