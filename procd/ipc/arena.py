"""The arena as a process sees it: a shared mapping with one slot for each accepted task.

The arena is the truth about tasks. The message queue gives them an order, hints and
doorbells wake somebody; any of those may be lost, doubled or made anew.

Rules of this file:
- The payload is written before the word. A word is stored through a memoryview of 'Q', one
  aligned store of 8 bytes: struct.pack_into clears the bytes first, and who reads or dies in
  between finds or leaves zeros.
- A process writes only words of slots that are its to write: a dispatcher those of the
  chunks that it owns, a task worker one whose byte it has locked.
- The file is opened once, by the master; here its descriptor is inherited. Nobody may
  close a descriptor of this file in a running process: the kernel would drop all of the
  process's record locks (fcntl(2)), and with them its claim. mmap keeps a duplicate for
  that reason too.
- The master never maps it: a file that somebody truncates is SIGBUS for who touches it.
"""

from __future__ import annotations

import time

from procd.errors import TaskQueueFull
from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.arenaview import ArenaView
from procd.ipc.keytable import KeyTable, KeyTaken
from procd.ipc.layout import Layout, Meta, MetaValues
from procd.ipc.spool import RESULT, TASK, Spool
from procd.ipc.terms import AT as TERMS_AT
from procd.ipc.terms import (
    CANCELLED_AT,
    DUE_AT,
    FIXED_AT,
    FIXED_END,
    TRIES_AT,
    Terms,
)
from procd.ipc.words import SlotState
from procd.linux import recordlock

# Chunk locks lie far behind the slots' bytes; a lock needs no bytes under it.
CHUNK_LOCKS = 1 << 40
QUEUED = SlotState.QUEUED
LOCK_SECONDS = 0.00005  # between two tries at a lock that is held for microseconds


class Arena(ArenaView):
    """One process's view. Not for the master.

    *row* and *incarnation* name the process; claim() and lease() act in that name.
    """

    def __init__(self, fd: int, layout: Layout, spool: Spool) -> None:
        super().__init__(fd, layout, spool)
        self.row = 0
        self.incarnation = 0
        self.keys = KeyTable(fd, self._words, layout, self.key_of)

    def become(self, row: int, incarnation: int) -> None:
        """Say who this process is; once, right after the fork."""
        self.row, self.incarnation = row, incarnation

    def _set_word(self, slot: int, word: int) -> None:
        self._words[self._first_word + slot] = word

    # Dispatcher

    def lease(self) -> list[int]:
        """Take a free chunk and return its slots; an empty list when there is none.

        The table's word is the lease; the record lock only keeps two takers apart, and the
        kernel frees it should this process die between the two.
        """
        mine = lay.owner_word(self.row, self.incarnation)
        for step in range(self.layout.chunks):
            # Each process starts to look elsewhere: fewer meetings at one chunk.
            chunk = (step + self.row * 7) % self.layout.chunks
            at = self.layout.chunk_at(chunk) // 8
            if self._words[at] != lay.NOBODY:
                continue
            if not recordlock.try_lock(self.fd, CHUNK_LOCKS + chunk):
                continue
            free = self._words[at] == lay.NOBODY
            if free:
                self._words[at] = mine
            recordlock.unlock(self.fd, CHUNK_LOCKS + chunk)
            if free:
                first = chunk * self.layout.chunk_slots
                return list(range(first, first + self.layout.chunk_slots))
        return []

    def give_back(self, chunk: int) -> None:
        """End the lease of a chunk whose slots are all free."""
        self._words[self.layout.chunk_at(chunk) // 8] = lay.NOBODY

    def accept(
        self,
        slot: int,
        payload: bytes,
        meta: MetaValues,
        state: SlotState,
        terms: bytes = b"",
        key: int = 0,
    ) -> int:
        """Write a task into a free slot of an own chunk; return its token.

        From the last store on the task is there: it will run, or (HELD) be written down first.
        Raises what Spool.write does, and with a *key* what KeyTable.entering does.
        """
        at = self._body_at(slot)
        epoch = words.epoch_of(self.word(slot)) + 1
        token = words.token(slot, epoch)
        self._put(token, TASK, at + lay.META_BYTES, payload)
        lay.META.pack_into(self.map, at, *meta, 0, lay.OPEN)
        if terms:
            self.map[at + TERMS_AT : at + lay.META_BYTES] = terms
        fixed = terms[FIXED_AT - TERMS_AT : FIXED_END - TERMS_AT]
        seal = lay.seal(self.map[at : at + lay.SEAL_AT], fixed, payload, token)
        lay.SEAL.pack_into(self.map, at + lay.SEAL_AT, seal)
        word = words.pack(state, 0, 0, epoch)
        if not key:
            self._set_word(slot, word)
            return token
        try:
            with self.keys.entering(key, token):
                self._set_word(slot, word)
        except (KeyTaken, TaskQueueFull):
            if len(payload) > self.layout.slot_bytes:
                self.spool.remove(token, TASK)
            raise
        return token

    def cancel(self, token: int) -> bool:
        """Mark a task as cancelled, from any process; False if it is over, or names nothing.

        One that has not begun does not begin any more. The master does the rest.
        """
        slot = words.slot_of(token)
        if not self.is_live(token):
            return False
        self._words[(self._body_at(slot) + CANCELLED_AT) // 8] = token
        return True

    def free(self, token: int) -> None:
        """Give a done slot of an own chunk free."""
        slot = words.slot_of(token)
        at = self._body_at(slot)
        if self.layout.is_spooled(self.map, at):
            self.spool.remove(token)
        self.map[at + lay.SEAL_AT : at + lay.SEAL_AT + lay.SEAL.size] = lay.BROKEN
        self._set_word(slot, words.freed(token))

    # Task worker

    def claim(self, token: int) -> tuple[int, Meta, bytes] | None:
        """Make the task this process's; return attempt, meta and payload.

        None when the token is old, doubled, or names nothing: it can be dropped, for the
        arena knows better. The winner holds the record lock until finish().
        Raises Damaged if its file is gone, or it is not what was accepted under that token.
        """
        slot = words.slot_of(token)
        if slot >= self.layout.slots:
            return None
        while not recordlock.try_lock(self.fd, slot):
            # Whoever holds it runs this task (its word says so in a moment), or looks by a token
            # of an earlier one, or has just finished that: then the task has no other token.
            if not self._is_claimable(token):
                return None
            time.sleep(LOCK_SECONDS)
        # Read under the lock: only now is nobody else between his look and his word.
        word = self.word(slot)
        if not words.is_of(word, token, QUEUED) and not self._is_claimable(token):
            recordlock.unlock(self.fd, slot)
            return None
        self._set_word(slot, words.moved(word, SlotState.RUNNING, self.row))
        return words.attempt_of(word), *self._task(token)

    def _is_claimable(self, token: int) -> bool:
        return self._is(token, SlotState.QUEUED) or self._is(token, SlotState.ADDRESSED)

    def finish(self, token: int, result: bytes, *, failed: bool, is_dead: bool = False) -> None:
        """Publish the result and let go; this process never touches the slot again.

        DONE (DEAD if the ledger is to keep it) stands before anybody is told: a late DONE would
        land in a reused slot. Raises what Spool.write does, and the task still runs then.
        """
        slot = words.slot_of(token)
        at = self._body_at(slot)
        self._put(token, RESULT, at + lay.META_BYTES + self.layout.slot_bytes, result)
        self._words[(at + lay.RESULT_AT) // 8] = lay.result_word(len(result), failed=failed)
        state = SlotState.DEAD if is_dead else SlotState.DONE
        self._set_word(slot, words.moved(self.word(slot), state, self.row))
        recordlock.unlock(self.fd, slot)

    def postpone(self, token: int, terms: Terms) -> None:
        """Give back a task that is to be tried again when *terms*.due has come, and let go."""
        slot = words.slot_of(token)
        at = self._body_at(slot)
        self.map[at + DUE_AT : at + DUE_AT + 8] = terms.pack()[:8]
        self._words[(at + TRIES_AT) // 8] = terms.tries
        word = words.unpack(self.word(slot))
        attempt = min(word.attempt + 1, words.MAX_ATTEMPTS)
        self._set_word(slot, words.pack(SlotState.DELAYED, attempt, 0, word.epoch))
        recordlock.unlock(self.fd, slot)

    # What is too large for a slot goes to the spool; nobody above here knows.

    def _put(self, token: int, kind: str, start: int, data: bytes) -> None:
        if len(data) > self.layout.slot_bytes:
            self.spool.write(token, kind, data)
        else:
            self.map[start : start + len(data)] = data
