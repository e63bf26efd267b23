"""What the master reads of the arena, in place: see ipc.arenafile."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.layout import Layout, Meta
from procd.ipc.spool import Spool
from procd.ipc.steadyfile import SteadyFile
from procd.ipc.terms import TERMS, Terms
from procd.ipc.words import SlotState

_WAITING = (SlotState.HELD, SlotState.QUEUED, SlotState.ADDRESSED)
_KEPT = (*words.LIVE, SlotState.DEAD)


class Slot(NamedTuple):
    """One slot that is in use."""

    number: int
    state: SlotState
    attempt: int
    row: int
    epoch: int

    @property
    def token(self) -> int:
        return words.token(self.number, self.epoch)

    @property
    def next_attempt(self) -> int:
        return min(self.attempt + 1, words.MAX_ATTEMPTS)


class ArenaReader:
    """One arena, and the spool beside it, for the master's life."""

    def __init__(self, path: Path, fd: int, layout: Layout, spool: Spool) -> None:
        self.path = path
        self.fd = fd
        self.layout = layout
        self.spool = spool
        self._file = SteadyFile(fd, layout.size)

    @property
    def lost(self) -> str:
        """Why it cannot be used any more, "" if it can."""
        self._file.check()
        return self._file.lost

    def _words(self, first: int, count: int) -> array[int]:
        return array("Q", self._file.read(count * 8, self.layout.word_at(first)))

    def owners(self) -> array[int]:
        """Return the chunk table."""
        return array("Q", self._file.read(self.layout.chunks * 8, lay.PAGE))

    def owner(self, number: int) -> int:
        """Return the owner word of the chunk that a slot is in."""
        at = self.layout.chunk_at(number // self.layout.chunk_slots)
        return array("Q", self._file.read(8, at))[0]

    def slot(self, number: int) -> Slot:
        return Slot(number, *words.unpack(self._words(number, 1)[0]))

    def _owned(self) -> Iterator[tuple[int, array[int]]]:
        """Yield first slot and words of each chunk that has an owner; one read for all."""
        size, table = self.layout.chunk_slots, self._words(0, self.layout.slots)
        for chunk, owner in enumerate(self.owners()):
            if owner != lay.NOBODY:
                yield chunk * size, table[chunk * size : (chunk + 1) * size]

    # A death is put right while others wait for the master: these look at plain integers,
    # some twenty times quicker than making a Slot of each.

    def tokens(self, state: SlotState) -> list[int]:
        """Return the tokens of all slots in a state."""
        mask, shift, bits = words.STATE_MASK, 64 - words.EPOCH_BITS, words.SLOT_BITS
        return [
            word >> shift << bits | number
            for first, table in self._owned()
            for number, word in enumerate(table, first)
            if word & mask == state
        ]

    def oldest_first(self, tokens: Iterable[int]) -> list[int]:
        """Return tokens in the order in which their tasks were accepted."""
        return sorted(tokens, key=lambda token: self.meta(words.slot_of(token)).accepted_at)

    def count(self) -> tuple[int, int]:
        """Return how many tasks are queued and how many run."""
        states = self.states()
        return sum(map(states.count, _WAITING)), states.count(SlotState.RUNNING)

    def states(self) -> list[int]:
        """Return the state of each slot in chunks that have an owner."""
        mask = words.STATE_MASK
        return [word & mask for _, table in self._owned() for word in table]

    def chunk(self, chunk: int) -> Iterator[Slot]:
        """Return a chunk's slots that are in use."""
        size = self.layout.chunk_slots
        for number, word in enumerate(self._words(chunk * size, size), chunk * size):
            if word & words.STATE_MASK != SlotState.FREE:
                yield Slot(number, *words.unpack(word))

    def in_use(self) -> Iterator[Slot]:
        """Return every slot that is in use, in chunks that have an owner."""
        for first, table in self._owned():
            for number, word in enumerate(table, first):
                if word & words.STATE_MASK != SlotState.FREE:
                    yield Slot(number, *words.unpack(word))

    def last_epoch(self) -> int:
        return max(self._words(0, self.layout.slots)) >> 64 - words.EPOCH_BITS

    def needs(self, token: int) -> bool:
        """Tell whether a token is that of a slot in use: then its files must stay."""
        if words.slot_of(token) >= self.layout.slots:
            return False
        slot = self.slot(words.slot_of(token))
        return slot.token == token and slot.state is not SlotState.FREE

    def is_queued(self, token: int) -> bool:
        slot = self.slot(words.slot_of(token))
        return slot.state is SlotState.QUEUED and slot.token == token

    def _meta(self, number: int) -> bytes:
        return self._file.read(lay.META_BYTES, self.layout.body_at(number))

    def meta(self, number: int) -> Meta:
        return Meta.unpack(self._meta(number))

    def terms(self, slot: Slot) -> Terms:
        """Return a task's terms; without any it has no retries, and each attempt was a crash."""
        meta = self._meta(slot.number)
        these = Terms.unpack(meta)
        if Meta.unpack(meta).flags & TERMS:
            return these
        return Terms(crashes=slot.attempt, cancelled=these.cancelled)

    def has_failed(self, number: int) -> bool:
        """Tell whether the result in a done slot is a failure."""
        meta = self._meta(number)
        return lay.result_of(lay.WORD.unpack_from(meta, lay.RESULT_AT)[0])[1]

    def payload(self, number: int) -> bytes:
        """Return as much of a payload as stands in the slot: nothing if it is in the spool."""
        size = self.meta(number).payload_bytes
        at = self.layout.body_at(number) + lay.META_BYTES
        return self._file.read(size, at) if size <= self.layout.slot_bytes else b""


def live(slots: Iterator[Slot]) -> list[Slot]:
    """Keep the slots whose tasks have not finished, or are not where they rest."""
    return [slot for slot in slots if slot.state in _KEPT]
