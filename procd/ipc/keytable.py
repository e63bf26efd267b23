"""The key table: by it a key (`.options(key=...)`) has one live task in the whole service.

It lies in the arena's file, so that it is as old as the tasks that it tells of: it outlives every
process, and a stop. It is hints only, as the queue is: an entry is a token, and whether that
task is live, and has this key, its slot says (word and terms). So nothing is ever taken out:
an entry whose task is over is free.

    table = buckets of 64 entries of 8 bytes; a key's hash names its one bucket

Who sends by a key looks first, without a lock: a token whose slot was live before and after
its key was read is an answer. To enter one he holds the record lock of the bucket, for
microseconds, with payload, meta and terms written already:

    look again -> write the entry -> write the slot's word

- Killed before the entry: nothing has happened, the kernel frees the lock.
- Killed between entry and word: the entry names a use of the slot that never was: free. Should
  that use be given to another task later (the same token), its own key counts, which is
  another one, or none.
- The word first would be wrong: killed after it the task lives, and nobody finds it by its key.

A key is 64 bits of BLAKE2b of the task's name and what the app wrote. Two live tasks that
meet there by chance: once in some 10^14 sends into a full arena of 32,768 slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple

from procd.errors import TaskQueueFull
from procd.ipc.layout import BUCKET_ENTRIES, Layout
from procd.linux import recordlock

OVER = -1  # of a token that names no live task

# Bucket locks lie behind the slots' bytes and the chunks'.
BUCKET_LOCKS = 1 << 41
LOCK_SECONDS = 0.00005  # between two tries
PATIENCE_SECONDS = 0.2  # somebody was stopped (SIGSTOP) with the lock: nobody waits for him


class KeyTaken(Exception):
    """A live task has the key."""

    def __init__(self, token: int) -> None:
        super().__init__(f"task {token}")
        self.token = token


class Found(NamedTuple):
    """What a look at a bucket tells."""

    token: int  # of the live task with the key; 0 = none
    free: int  # the first entry that may be written; -1 = none


def hashed(name: str | None, key: str) -> int:
    """Return the 64 bits that stand for a task's name and a key; never 0."""
    text = f"{'-' if name is None else len(name)}:{name or ''}{key}"
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") or 1


def bucket_of(key: int, buckets: int) -> int:
    return key % buckets


def look(entries: Iterable[int], key: int, buckets: int, key_of: Callable[[int], int]) -> Found:
    """Look for *key* among the entries of its bucket.

    *key_of* tells the key of a live task, 0 if it has none, OVER if there is no such.
    """
    free = -1
    for place, token in enumerate(entries):
        found = key_of(token) if token else OVER
        if found == key:
            return Found(token, free)
        is_free = found <= 0 or bucket_of(found, buckets) != bucket_of(key, buckets)
        if is_free and free < 0:
            free = place
    return Found(0, free)


class KeyTable:
    """One process's view. *view* is the arena's file in words of 8 bytes."""

    def __init__(
        self, fd: int, view: memoryview, layout: Layout, key_of: Callable[[int], int]
    ) -> None:
        self._fd = fd
        self._view = view
        self._at = layout.keys_at // 8
        self._buckets = layout.key_buckets
        self._key_of = key_of

    def find(self, key: int) -> int:
        """Return the token of the live task with a key, 0 if there is none."""
        return self._look(key).token

    def _look(self, key: int) -> Found:
        first = self._first(key)
        entries = self._view[first : first + BUCKET_ENTRIES].tolist()
        return look(entries, key, self._buckets, self._key_of)

    def _first(self, key: int) -> int:
        return self._at + bucket_of(key, self._buckets) * BUCKET_ENTRIES

    @contextmanager
    def entering(self, key: int, token: int) -> Iterator[None]:
        """Enter a task that is about to live; its word is to be written within.

        Raises KeyTaken, and TaskQueueFull if there is no room for another key.
        """
        lock = BUCKET_LOCKS + bucket_of(key, self._buckets)
        self._lock(lock)
        try:
            found = self._look(key)
            if found.token:
                raise KeyTaken(found.token)
            if found.free < 0:
                raise TaskQueueFull("too many tasks with keys like this one wait or run: try later")
            self._view[self._first(key) + found.free] = token
            yield
        finally:
            recordlock.unlock(self._fd, lock)

    def _lock(self, lock: int) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not recordlock.try_lock(self._fd, lock):
            if time.monotonic() > until:
                pid = recordlock.holder(self._fd, lock)
                raise TaskQueueFull(f"process {pid} does not let go of this key: is it stopped?")
            time.sleep(LOCK_SECONDS)
