"""Recycling at different times."""

from __future__ import annotations

import random


def with_jitter(count: int) -> int:
    """Return when to retire: processes that began together should not end together.

    0 = never.
    """
    return count + random.randrange(max(1, count // 10)) if count else 0  # noqa: S311
