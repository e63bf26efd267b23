"""The arena as the ledger sees it: slots that wait for what it writes down.

A HELD slot is a task that is accepted once it is on disk, a DEAD one a letter to be laid down,
and a DONE one of a durable task is owed a note that this is over. Nobody else writes the word of
the first two, nor the ledger's own word of any; so nothing here needs a lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from typing import NamedTuple

from procd.ipc import layout as lay
from procd.ipc import wire, words
from procd.ipc.arena import Arena
from procd.ipc.layout import Damaged, Meta
from procd.ipc.spool import RESULT
from procd.ipc.terms import TERMS
from procd.ipc.words import SlotState
from procd.ledger.record import Ending, Entry, name_of
from procd.ledger.schema import State
from procd.tasks.failure import CANCELLED

_MAX_ID = 2**63 - 1


class Found(NamedTuple):
    """Tokens of slots that wait for the ledger."""

    held: list[int]
    dead: list[int]
    over: list[int]


class LedgerArena(Arena):
    """The ledger's view of the arena."""

    def look(self) -> Found:
        """Return what waits. A look at 32,768 slots takes some 0.1 ms."""
        states = self._states(0, self.layout.slots)
        done = self._tokens(states, SlotState.DONE)
        return Found(
            list(self._tokens(states, SlotState.HELD)),
            list(self._tokens(states, SlotState.DEAD)),
            [token for token in done if self.is_owed(token)],
        )

    def live(self) -> Iterator[tuple[int, SlotState, int, Meta]]:
        """Yield token, state, attempts before this one and meta of each task that is not over.

        One that moves on meanwhile is seen as it is then.
        """
        states = self._states(0, self.layout.slots)
        for state in words.LIVE:
            number = states.find(state)
            while number >= 0:
                word = words.unpack(self.word(number))
                if word.state in words.LIVE:
                    token = words.token(number, word.epoch)
                    yield token, word.state, word.attempt, self.meta(token)
                number = states.find(state, number + 1)

    # Reading

    def meta(self, token: int) -> Meta:
        at = self.layout.body_at(words.slot_of(token))
        return Meta.unpack(self.map[at : at + lay.META_BYTES])

    def payload(self, token: int) -> bytes:
        """Raises Damaged."""
        return self._task(token)[1]

    def attempts(self, token: int) -> int:
        """Return how often it was begun by now, if it was."""
        return words.unpack(self.word(words.slot_of(token))).attempt + 1

    def entry(self, token: int) -> Entry:
        """Return a task with its data; raises Damaged."""
        return self._entry(token, self.payload(token))

    def letter(self, token: int) -> tuple[Entry, Ending]:
        """Return a dead task and how it died. Data that is damaged is lost, and that is said."""
        error, trace, _, how = self._failure(token)
        try:
            entry = self.entry(token)
        except Damaged as damaged:
            entry = self._entry(token, b"")
            entry = replace(entry, flags=entry.flags & ~TERMS, terms=b"", due=0.0)
            error = error if str(damaged) in error else f"{error}; its data is damaged: {damaged}"
        if entry.terms:  # if it is run again then from the beginning, and however late it is
            anew = self.terms(token)._replace(due=0, failures=0, crashes=0, expires=0, cancelled=0)
            entry = replace(entry, terms=anew.pack(), due=0.0)
        attempts = self.attempts(token)
        return entry, Ending(entry.id, State.DEAD, attempts, time.time(), error, trace, how)

    def ending(self, token: int) -> Ending:
        """Return how a done task came to its end."""
        number = task_id(token, self.meta(token))
        attempts, now = self.attempts(token), time.time()
        at = self.layout.body_at(words.slot_of(token))
        _, failed = lay.result_of(self._words[(at + lay.RESULT_AT) // 8])
        if not failed:
            return Ending(number, State.DONE, attempts, now)
        error, trace, kind, _ = self._failure(token)
        state = State.CANCELLED if kind == CANCELLED else State.FAILED
        return Ending(number, state, attempts, now, error, trace)

    def _failure(self, token: int) -> list[str]:
        """Return text, traceback, kind and what ended the process, each "" where there is none."""
        try:
            value = wire.unpack(self.result(token)[0])
        except (Damaged, wire.Undecodable) as error:
            value = [f"what was noted of its end is damaged: {error}"]
        parts = (
            [_clean(str(part)) for part in value]
            if isinstance(value, list)
            else [_clean(str(value))]
        )
        return [*parts[:4], "", "", "", ""][:4]

    def _entry(self, token: int, payload: bytes) -> Entry:
        meta = self.meta(token)
        terms = self.terms(token) if meta.flags & TERMS else None
        return Entry(
            task_id(token, meta),
            payload,
            meta.flags,
            meta.priority,
            meta.src_worker_id,
            meta.accepted_at if isfinite(meta.accepted_at) else time.time(),
            name_of(payload) if meta.flags & lay.NAMED else None,
            terms=terms.pack() if terms else b"",
            due=terms.due if terms else 0.0,
        )

    # Writing, once it is on disk

    def admit(self, token: int) -> bool:
        """Let a held task run; False if it is not due yet."""
        is_due = not self.meta(token).flags & TERMS or self.terms(token).due <= time.time()
        self._turn(token, SlotState.QUEUED if is_due else SlotState.DELAYED)
        return is_due

    def refuse(self, token: int, packed: bytes) -> None:
        """Fail a held task for which there is no room; *packed* says why and fits a slot."""
        at = self.layout.body_at(words.slot_of(token))
        self._put(token, RESULT, at + lay.META_BYTES + self.layout.slot_bytes, packed)
        self._words[(at + lay.RESULT_AT) // 8] = lay.result_word(len(packed), failed=True)
        self._note(token, lay.REJECTED)
        self._turn(token, SlotState.DONE)

    def settle(self, token: int) -> None:
        """Note that a task is over: its slot may be freed."""
        self._note(token, lay.SETTLED)

    def bury(self, token: int) -> None:
        """Let the failure of a dead task be told."""
        self._note(token, lay.SETTLED)
        self._turn(token, SlotState.DONE)

    def _note(self, token: int, word: int) -> None:
        at = self.layout.body_at(words.slot_of(token))
        self._words[(at + lay.LEDGER_AT) // 8] = word

    def _turn(self, token: int, state: SlotState) -> None:
        slot = words.slot_of(token)
        old = self.word(slot)
        new = words.pack(state, words.unpack(old).attempt, 0, words.epoch_of(old))
        words.check(old, new, words.Writer.LEDGER)
        self._set_word(slot, new)


def task_id(token: int, meta: Meta) -> int:
    """Return a task's id, one of 63 bits even if the slot is damaged."""
    return (meta.task_id or token) & _MAX_ID


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
