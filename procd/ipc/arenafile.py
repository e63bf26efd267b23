"""The arena as the master sees it: a file, read and written in place, never mapped.

The master writes a slot only when nobody else may: its task worker is reaped, its
dispatcher is reaped, or (an addressed task whose seat is gone) under the slot's lock.
A file that is no arena of ours is set aside under another name, never trusted and never
deleted.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from procd.errors import StartFailed
from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.layout import Damaged, Layout, Meta
from procd.ipc.spool import Spool
from procd.ipc.terms import TERMS, Terms
from procd.ipc.words import SlotState, Writer
from procd.linux import recordlock

SPOOL = "spool"  # the folder, beside the arena
LOCK_TRIES = 100  # the master waits for nobody
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


class ArenaFile:
    """One arena, and the spool beside it, for the master's life. Made by create() or adopt()."""

    def __init__(self, path: Path, fd: int, layout: Layout, spool: Spool) -> None:
        self.path = path
        self.fd = fd
        self.layout = layout
        self.spool = spool

    @classmethod
    def create(cls, path: Path, layout: Layout) -> ArenaFile:
        """Make an empty arena; raises StartFailed (full disk, no permission) leaving none."""
        fd, spool = -1, Spool(path.with_name(SPOOL))
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # A hole in a sparse file on a full disk would be SIGBUS for who touches it.
            os.posix_fallocate(fd, 0, layout.size)
            free = words.pack(SlotState.FREE, 0, 0, layout.first_epoch)
            os.pwrite(fd, (array("Q", [free]) * layout.slots).tobytes(), layout.words_at)
            os.pwrite(fd, layout.header(), 0)  # last: a half-made arena is no arena
        except OSError as error:
            spool.close()
            if fd >= 0:
                os.close(fd)
                path.unlink()
            cure = f"; it needs {layout.size >> 20} MiB: free some, or lower task_slots"
            raise StartFailed(
                f"cannot make the task arena {path}: {error.strerror}"
                + (cure if error.errno in (errno.ENOSPC, errno.EDQUOT) else "")
            ) from None
        return cls(path, fd, layout, spool)

    @classmethod
    def adopt(cls, path: Path) -> ArenaFile | None:
        """Open the arena that an earlier master left; None when there is none.

        Raises Damaged when the file cannot be trusted (the caller sets it aside), and
        StartFailed when it cannot be opened.
        """
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartFailed(f"cannot open the task arena {path}: {error.strerror}") from None
        try:
            _check_kind(fd)
            layout = Layout.read(os.pread(fd, lay.PAGE, 0), os.fstat(fd).st_size)
            return cls(path, fd, layout, Spool(path.with_name(SPOOL)))
        except (Damaged, StartFailed):
            os.close(fd)
            raise

    # Looking

    def _words(self, first: int, count: int) -> array[int]:
        return array("Q", os.pread(self.fd, count * 8, self.layout.word_at(first)))

    def owners(self) -> array[int]:
        """Return the chunk table."""
        return array("Q", os.pread(self.fd, self.layout.chunks * 8, lay.PAGE))

    def owner(self, number: int) -> int:
        """Return the owner word of the chunk that a slot is in."""
        at = self.layout.chunk_at(number // self.layout.chunk_slots)
        return array("Q", os.pread(self.fd, 8, at))[0]

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
        number = words.slot_of(token)
        if number >= self.layout.slots:
            return False
        slot = self.slot(number)
        return slot.token == token and slot.state is not SlotState.FREE

    def _meta(self, number: int) -> bytes:
        return os.pread(self.fd, lay.META_BYTES, self.layout.body_at(number))

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
        return os.pread(self.fd, size, at) if size <= self.layout.slot_bytes else b""

    # Changing

    def move(self, slot: Slot, state: SlotState, attempt: int = 0) -> None:
        """Write a slot's word. Raises IllegalChange: the master knows its rules."""
        old = words.pack(slot.state, slot.attempt, slot.row, slot.epoch)
        new = words.pack(state, attempt, 0, slot.epoch)
        words.check(old, new, Writer.MASTER)
        os.pwrite(self.fd, lay.WORD.pack(new), self.layout.word_at(slot.number))

    def requeue(self, slot: Slot, attempt: int) -> bool:
        """Let a task whose process is dead run again; False to be tried again.

        Under the slot's lock: who claims by a doubled token must not see half of the word.
        Such a one holds the lock for microseconds, and then drops the token.
        """
        for _ in range(LOCK_TRIES):
            if recordlock.try_lock(self.fd, slot.number):
                break
            os.sched_yield()
        else:
            return False
        try:
            self.move(slot, SlotState.QUEUED, attempt)
        finally:
            recordlock.unlock(self.fd, slot.number)
        return True

    def unaddress(self, slot: Slot) -> bool:
        """Let any task worker have an addressed task; False when it is running by now."""
        return self._changed(slot, lambda: self.move(slot, SlotState.QUEUED, slot.attempt))

    def withdraw(self, slot: Slot, result: bytes) -> bool:
        """Publish that a task was cancelled before it began; False to be looked at again."""
        return self._changed(slot, lambda: self.fail(slot, result))

    def _changed(self, slot: Slot, change: Callable[[], None]) -> bool:
        """Change a slot under its lock if it is still as it was."""
        if not recordlock.try_lock(self.fd, slot.number):
            return False
        try:
            is_same = self.slot(slot.number) == slot
            if is_same:
                change()
            return is_same
        finally:
            recordlock.unlock(self.fd, slot.number)

    def fail(self, slot: Slot, result: bytes) -> None:
        """Publish a failure for a task that nobody runs."""
        self._end(slot, result, SlotState.DONE)

    def give_up(self, slot: Slot, result: bytes) -> None:
        """Leave a task whose process is dead to the ledger, with the failure that it tells then."""
        self._end(slot, result, SlotState.DEAD)

    def _end(self, slot: Slot, result: bytes, state: SlotState) -> None:
        at = self.layout.body_at(slot.number)
        os.pwrite(self.fd, result, at + lay.META_BYTES + self.layout.slot_bytes)
        self.note(slot.number, lay.RESULT_AT, lay.result_word(len(result), failed=True))
        self.move(slot, state, slot.attempt)

    def note(self, number: int, at: int, word: int) -> None:
        """Write one of those words of a slot's meta that may change."""
        os.pwrite(self.fd, lay.WORD.pack(word), self.layout.body_at(number) + at)

    def set_owner(self, chunk: int, owner: int) -> None:
        os.pwrite(self.fd, lay.WORD.pack(owner), self.layout.chunk_at(chunk))

    def sweep(self, chunk: int, keeps: Callable[[int], bool] = lambda _: False) -> tuple[int, bool]:
        """Free the done slots of a chunk whose dispatcher is dead, but those that *keeps* names.

        Returns how many results had no reader, and whether tasks are still in it; if not,
        the chunk goes back to the pool.
        """
        done, left = 0, False
        size = self.layout.chunk_slots
        for number, word in enumerate(self._words(chunk * size, size), chunk * size):
            state = word & words.STATE_MASK
            meta = self._meta(number) if state == SlotState.DONE else b""
            slot = Slot(number, *words.unpack(word))
            if meta and not lay.is_owed(meta) and not keeps(slot.token):
                if self.layout.is_spooled(meta):
                    self.spool.remove(slot.token)
                self.move(slot, SlotState.FREE)
                done += 1
            else:
                left = left or state != SlotState.FREE
        self.set_owner(chunk, lay.ORPHAN if left else lay.NOBODY)
        return done, left

    def close(self) -> None:
        self.spool.close()
        os.close(self.fd)


def _check_kind(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Damaged("it is no regular file")


def live(slots: Iterator[Slot]) -> list[Slot]:
    """Keep the slots whose tasks have not finished, or are not where they rest."""
    return [slot for slot in slots if slot.state in _KEPT]
