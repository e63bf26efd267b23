"""A promise, what was measured of it, and whether it was kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """One line of bench.torture's table."""

    promise: str
    measured: str
    is_kept: bool
