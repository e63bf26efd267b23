"""How far below its limit a process asks to be replaced, by how fast it grows."""

from __future__ import annotations

import pytest

from procd.tasks.memory import margin

MIB = 1 << 20


@pytest.mark.parametrize(
    ("rate", "bytes_below"),
    [
        (0.0, 10 * MIB),
        (5.0 * MIB, 10 * MIB),
        (30.0 * MIB, 30 * MIB),
        (1e12, 50 * MIB),
    ],
)
def test_the_faster_it_grows_the_sooner_it_asks_within_bounds(
    rate: float, bytes_below: int
) -> None:
    assert margin(100 * MIB, rate) == bytes_below
