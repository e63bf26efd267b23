"""Damaged and hostile messages, honest ones among them: bench/foreign.py in a short round."""

from __future__ import annotations

import os

import pytest

from bench.foreign import hostility
from bench.torture import row
from tests.service.daemon import scaled


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_among_hostile_messages_each_honest_one_is_served_once_and_no_file_is_touched() -> None:
    broken = [row(verdict) for verdict in hostility(scaled(100_000)) if not verdict.is_kept]
    assert not broken
