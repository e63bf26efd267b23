"""The arena as the master sees it: a file, read and written in place, never mapped.

The master writes a slot only when nobody else may: its task worker is reaped, its
dispatcher is reaped, or (an addressed task whose seat is gone) under the slot's lock.
A file that is no arena of ours is set aside, never trusted and never deleted. One that
somebody cuts short while it is in use reads as empty.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Callable
from pathlib import Path

from procd.errors import StartFailed
from procd.ipc import layout as lay
from procd.ipc import mending, words
from procd.ipc.arenareader import ArenaReader, Slot
from procd.ipc.layout import Damaged, Layout
from procd.ipc.spool import Spool
from procd.ipc.words import SlotState, Writer
from procd.linux import recordlock

SPOOL = "spool"  # the folder, beside the arena
LOCK_TRIES = 100  # the master waits for nobody


class ArenaFile(ArenaReader):
    """One arena, and the spool beside it, for the master's life. Made by create() or adopt()."""

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
            return cls(path, fd, _layout_of(fd), Spool(path.with_name(SPOOL)))
        except (Damaged, StartFailed):
            os.close(fd)
            raise

    def mend(self) -> tuple[int, int]:
        """Put right what cannot be true; return how many slots and chunks had to be.

        Such a slot is freed, for nobody can tell what was in it; such a chunk is swept.
        """
        table = self._words(0, self.layout.slots)
        wrong, newest = mending.impossible_slots(self.layout, table)
        for number in wrong:
            table[number] = words.pack(SlotState.FREE, 0, 0, newest)
            self._file.write(lay.WORD.pack(table[number]), self.layout.word_at(number))
        chunks = mending.ownerless_chunks(self.layout, self.owners(), table)
        for chunk in chunks:
            self.set_owner(chunk, lay.ORPHAN)
        return len(wrong), len(chunks)

    # Changing

    def move(self, slot: Slot, state: SlotState, attempt: int = 0) -> None:
        """Write a slot's word. Raises IllegalChange: the master knows its rules."""
        old = words.pack(slot.state, slot.attempt, slot.row, slot.epoch)
        new = words.pack(state, attempt, 0, slot.epoch)
        words.check(old, new, Writer.MASTER)
        if state is SlotState.FREE:
            self._file.write(lay.BROKEN, self.layout.body_at(slot.number) + lay.SEAL_AT)
        self._file.write(lay.WORD.pack(new), self.layout.word_at(slot.number))

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
        self._file.write(result, at + lay.META_BYTES + self.layout.slot_bytes)
        self.note(slot.number, lay.RESULT_AT, lay.result_word(len(result), failed=True))
        self.move(slot, state, slot.attempt)

    def note(self, number: int, at: int, word: int) -> None:
        """Write one of those words of a slot's meta that may change."""
        self._file.write(lay.WORD.pack(word), self.layout.body_at(number) + at)

    def set_owner(self, chunk: int, owner: int) -> None:
        self._file.write(lay.WORD.pack(owner), self.layout.chunk_at(chunk))

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


def _layout_of(fd: int) -> Layout:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise Damaged("it is no regular file")
    return Layout.read(os.pread(fd, lay.PAGE, 0), found.st_size)
