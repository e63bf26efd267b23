"""The tally: what became of foreign programs' messages, in shared memory made by the master.

It outlives the ingress, whose deaths lose no count. The ingress writes, the master reads:
counters, one word each, and the last samples of what was refused, in a ring.
"""

from __future__ import annotations

import mmap
import struct
from enum import IntEnum
from typing import NamedTuple

from procd.ipc.foreign.message import Reason

SAMPLES = 20
HEAD_BYTES = 64  # of a refused message that are kept

_REASONS = tuple(Reason)
_WHY_BYTES = 160
_SAMPLE = struct.Struct(f"<dqIHHHxx{HEAD_BYTES}s{_WHY_BYTES}s")
_WRITTEN = 31  # the word that counts samples ever written
_SAMPLES_AT = 256


class Count(IntEnum):
    """The counters; behind them one for each Reason."""

    TAKEN = 0  # messages that became tasks
    UNADDRESSED = 1  # of them those whose type named no task worker
    ANSWERS = 2  # sent
    EXPIRED = 3  # answers that nobody read in time
    DROPPED = 4  # answers for which there was no room
    RACED = 5  # messages that another program took while they were looked at
    REASONS = 8


class Sample(NamedTuple):
    """One message that was refused."""

    when: float  # wall clock
    mtype: int
    size: int
    reason: str
    head: bytes
    why: str


class Tally:
    """Made once by the master; every ingress inherits it."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SAMPLES_AT + SAMPLES * _SAMPLE.size)
        self._words = memoryview(self._map)[:_SAMPLES_AT].cast("Q")

    def count(self, counter: Count) -> None:
        self._words[counter] += 1

    def refuse(self, mtype: int, data: bytes, reason: Reason, why: str, when: float) -> None:
        """Count a refused message and keep what it looked like."""
        number = _REASONS.index(reason)
        self._words[Count.REASONS + number] += 1
        head, text = data[:HEAD_BYTES], why.encode("utf-8", "replace")[:_WHY_BYTES]
        ring = self._words[_WRITTEN]
        _SAMPLE.pack_into(
            self._map,
            _SAMPLES_AT + ring % SAMPLES * _SAMPLE.size,
            *(when, mtype, len(data), number, len(head), len(text), head, text),
        )
        self._words[_WRITTEN] = ring + 1

    def get(self, counter: Count) -> int:
        return self._words[counter]

    def refused(self) -> dict[str, int]:
        """Return how many messages were refused for each reason, those without any left out."""
        counts = {r.value: self._words[Count.REASONS + n] for n, r in enumerate(_REASONS)}
        return {reason: count for reason, count in counts.items() if count}

    def samples(self) -> list[Sample]:
        """Return the last refused messages, the oldest first."""
        written = self._words[_WRITTEN]
        return [self._sample(n % SAMPLES) for n in range(max(0, written - SAMPLES), written)]

    def _sample(self, place: int) -> Sample:
        at = _SAMPLES_AT + place * _SAMPLE.size
        when, mtype, size, number, head, why, data, text = _SAMPLE.unpack_from(self._map, at)
        reason = _REASONS[number] if number < len(_REASONS) else Reason.FAULT
        return Sample(
            when, mtype, size, reason.value, data[:head], text[:why].decode("utf-8", "replace")
        )
