"""Writes entries to one target, in a thread: a disk or terminal that stands still holds up nobody.

What waits is bounded; what is beyond, or could not be written, is counted, and said once when
writing works again. The logger never forks, so a thread in it hurts nobody.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence

from procd.logger import target as targets
from procd.logger.entry import Entry, Who
from procd.logger.target import Target

MOST_BYTES = 8 * 1024 * 1024  # of entries that wait
ENTRY_BYTES = 200  # what an entry takes beside its message
LOOK_SECONDS = 1.0  # between two looks whether the file is still there
ASK_SECONDS = 10.0  # until it is asked for again
TOO_SLOW = "it is written too slowly"


class Writer:
    """*on_moved* is called, in the thread, when the file is another's or gone."""

    def __init__(self, target: Target, on_moved: Callable[[], object]) -> None:
        self.lost = 0  # entries, since the start
        self.why: str | None = None  # they are lost now
        self._target = target
        self._on_moved = on_moved
        self._unsaid = 0  # of those lost, since writing last worked
        self._waiting: list[Entry] = []
        self._bytes = 0
        self._is_over = self._is_torn = False
        self._look_at = 0.0
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, entries: Sequence[Entry]) -> None:
        """Have entries written; never waits."""
        size = sum(len(entry.message) + ENTRY_BYTES for entry in entries)
        with self._change:
            if self._bytes + size > MOST_BYTES:
                self._lose(len(entries), TOO_SLOW)
                return
            self._waiting += entries
            self._bytes += size
            self._change.notify()

    def close(self, seconds: float) -> None:
        """Write what waits, for so long at most."""
        with self._change:
            self._is_over = True
            self._change.notify()
        self._thread.join(seconds)

    # The thread

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._is_over:
                    self._change.wait()
                entries, self._waiting = self._waiting, []
                if not entries:
                    return
            self._look()
            self._write(entries)
            with self._change:
                # Now and not before: what is being written takes memory, too.
                self._bytes = sum(len(e.message) + ENTRY_BYTES for e in self._waiting)

    def _look(self) -> None:
        now, path = time.monotonic(), self._target.path
        if path is None or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            there, mine = os.lstat(path), os.fstat(self._target.fd)
            is_moved = (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
            # Where a link leads is looked at on a person's word alone, for it may be anybody's.
            is_moved &= not stat.S_ISLNK(there.st_mode)
        except FileNotFoundError:
            is_moved = True
        except OSError:  # who may not look cannot tell
            return
        if is_moved:
            self._look_at = now + ASK_SECONDS
            self._on_moved()

    def _write(self, entries: list[Entry]) -> None:
        if self._unsaid:
            text = f"log written again lost={self._unsaid} why={self.why!r}"
            entries.insert(0, Entry(time.time(), "warning", Who("logger", os.getpid()), text))
        write = self._send if self._target.format == "journal" else self._append
        written, error = write(entries)
        with self._change:
            if error is not None:
                self._lose(len(entries) - written - bool(self._unsaid and not written), error)
            elif self._unsaid:
                # What was lost while this was written is said the next time.
                self._unsaid, self.why = 0, None

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        self._unsaid += count
        self.why = why

    def _send(self, entries: list[Entry]) -> tuple[int, str | None]:
        for number, entry in enumerate(entries):
            try:
                targets.send(self._target.fd, self._target.render(entry))
            except OSError as error:
                return number, f"journald: {error.strerror}"
        return len(entries), None

    def _append(self, entries: list[Entry]) -> tuple[int, str | None]:
        """Return how many were written whole, and why not all."""
        pieces = [self._target.render(entry) for entry in entries]
        data = (b"\n" if self._is_torn else b"") + b"".join(pieces)
        done, error = self._all(data)
        if error is None:
            self._is_torn = False
            return len(entries), None
        if done:
            self._is_torn = data[done - 1 : done] != b"\n"
        end = written = 0
        for piece in pieces:
            end += len(piece)
            written += end <= done
        return written, error

    def _all(self, data: bytes) -> tuple[int, str | None]:
        view, done = memoryview(data), 0
        while done < len(data):
            try:
                done += os.write(self._target.fd, view[done:])
            except OSError as error:
                return done, error.strerror
        return done, None
