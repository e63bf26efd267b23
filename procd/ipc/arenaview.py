"""What a process reads of the arena through its mapping. See ipc.arena for who may write what."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.keytable import OVER
from procd.ipc.layout import Layout, Meta
from procd.ipc.spool import RESULT, TASK, Spool
from procd.ipc.terms import CANCELLED_AT, FIXED_AT, FIXED_END, KEY_AT, TERMS, Terms
from procd.ipc.words import SlotState


class ArenaView:
    """The arena as a process sees it."""

    def __init__(self, fd: int, layout: Layout, spool: Spool) -> None:
        self.fd = fd
        self.layout = layout
        self.spool = spool
        self.map = mmap.mmap(fd, layout.size)
        self._words = memoryview(self.map).cast("Q")
        self._first_word = layout.words_at // 8
        self._first_body, self._body_bytes = layout.bodies_at, layout.body_bytes

    def word(self, slot: int) -> int:
        return self._words[self._first_word + slot]

    def _body_at(self, slot: int) -> int:
        return self._first_body + slot * self._body_bytes

    def is_live(self, token: int) -> bool:
        """Tell whether a token names a task that is not over."""
        slot = words.slot_of(token)
        word = self.word(slot) if slot < self.layout.slots else 0  # once: it may change meanwhile
        is_its = words.epoch_of(word) == words.token_epoch(token)
        return is_its and words.state_of(word) in words.LIVE

    def key_of(self, token: int) -> int:
        """Return a live task's key, 0 if it has none; OVER for what is not live."""
        if not self.is_live(token):
            return OVER
        at = self._body_at(words.slot_of(token))
        has_terms = lay.flags_of(self.map, at) & TERMS  # else they are of an earlier task
        key = self._words[(at + KEY_AT) // 8] if has_terms else 0
        return key if self.is_live(token) else OVER

    def is_cancelled(self, token: int) -> bool:
        at = self._body_at(words.slot_of(token)) + CANCELLED_AT
        return self._words[at // 8] == token

    def done(self, chunk: int) -> list[int]:
        """Return the tokens of a chunk's done slots."""
        size = self.layout.chunk_slots
        states = self._states(chunk * size, size)
        return list(self._tokens(states, SlotState.DONE, chunk * size))

    def _states(self, first: int, count: int) -> bytes:
        """Return the states of slots, a byte each. Of 32,768 it takes some 0.1 ms."""
        start = 8 * (self._first_word + first)
        return self.map[start : start + 8 * count : 8].translate(lay.STATES)

    def _tokens(self, states: bytes, state: SlotState, first: int = 0) -> Iterator[int]:
        """Yield the tokens of those that were in a state and still are."""
        number = states.find(state)
        while number >= 0:
            word = self.word(first + number)
            if words.state_of(word) == state:
                yield words.token(first + number, words.epoch_of(word))
            number = states.find(state, number + 1)

    def is_done(self, token: int) -> bool:
        return self._is(token, SlotState.DONE)

    def is_delayed(self, token: int) -> bool:
        return self._is(token, SlotState.DELAYED)

    def is_addressed(self, token: int) -> bool:
        return self._is(token, SlotState.ADDRESSED)

    def is_held(self, token: int) -> bool:
        return self._is(token, SlotState.HELD)

    def is_owed(self, token: int) -> bool:
        """Tell whether a done task's slot must wait for the ledger."""
        return lay.is_owed(self.map, self._body_at(words.slot_of(token)))

    def is_rejected(self, token: int) -> bool:
        """Tell whether the ledger had no room for a held task."""
        at = self.layout.body_at(words.slot_of(token)) + lay.LEDGER_AT
        return self.is_done(token) and self._words[at // 8] == lay.REJECTED

    def _is(self, token: int, state: SlotState) -> bool:
        return words.is_of(self.word(words.slot_of(token)), token, state)

    def result(self, token: int) -> tuple[bytes, bool]:
        """Return the result of a done task, and whether it failed. Raises Damaged."""
        at = self._body_at(words.slot_of(token))
        size, failed = lay.result_of(self._words[(at + lay.RESULT_AT) // 8])
        start = at + lay.META_BYTES + self.layout.slot_bytes
        return self._get(token, RESULT, start, size), failed

    def result_bytes(self, token: int) -> int:
        """Return how long the result of a done task is."""
        at = self.layout.body_at(words.slot_of(token))
        return lay.result_of(self._words[(at + lay.RESULT_AT) // 8])[0]

    def terms(self, token: int) -> Terms:
        at = self._body_at(words.slot_of(token))
        return Terms.unpack(self.map[at : at + lay.META_BYTES])

    def dispatcher(self, token: int) -> tuple[int, int]:
        """Return row and incarnation of who owns a token's slot."""
        chunk = words.slot_of(token) // self.layout.chunk_slots
        return lay.owner_of(self._words[self.layout.chunk_at(chunk) // 8])

    def _task(self, token: int) -> tuple[Meta, bytes]:
        """Return a task as it was accepted: its meta and data; raises Damaged."""
        at = self._body_at(words.slot_of(token))
        meta = Meta._make(lay.META.unpack_from(self.map, at))
        payload = self._get(token, TASK, at + lay.META_BYTES, meta.payload_bytes)
        fixed = self.map[at + FIXED_AT : at + FIXED_END] if meta.flags & TERMS else b""
        if lay.seal(self.map[at : at + lay.SEAL_AT], fixed, payload, token) != meta.seal:
            raise lay.Damaged("it is not what was accepted")
        return meta, payload

    def _get(self, token: int, kind: str, start: int, size: int) -> bytes:
        if size > self.layout.slot_bytes:
            return self.spool.read(token, kind, size)
        return self.map[start : start + size]
