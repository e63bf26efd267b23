"""Reading a log file: its last entries, and what is added to it, also over a rotation.

An entry's last line is known only by the next entry, or by a moment in which nothing more comes.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from procd.logger import formats
from procd.logger.entry import Entry

BLOCK_BYTES = 64 * 1024
MOST_BLOCK_BYTES = 16 * 1024 * 1024  # beyond that the file is read from its beginning
PAUSE_SECONDS = 0.1

Wanted = Callable[[Entry], bool]


class LogFile:
    """The file at *path*, which may be another one in a moment. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._half = b""

    def last(self, count: int, wanted: Wanted) -> list[Entry]:
        """Return the last *count* entries that are wanted; follow() goes on behind them."""
        size, block = os.fstat(self._file.fileno()).st_size, BLOCK_BYTES
        while count:
            start = max(0, size - block)
            if start and block > MOST_BLOCK_BYTES:
                self._file.seek(0)
                whole = (line.decode(errors="replace").rstrip("\n") for line in self._file)
                return list(deque(filter(wanted, formats.entries(whole)), count))
            self._file.seek(start)
            data = self._file.read(size - start)
            lines = data[: data.rfind(b"\n") + 1].decode(errors="replace").split("\n")[:-1]
            # The first may be half of one.
            found = list(filter(wanted, formats.entries(islice(lines, int(start > 0), None))))
            if len(found) >= count or start == 0:
                self._half = data[data.rfind(b"\n") + 1 :]
                return found[-count:]
            block *= 4
        self._file.seek(size)
        return []

    def follow(self, wanted: Wanted) -> Iterator[Entry]:
        """Yield what is added, for ever."""
        kept: list[str] = []  # the lines of an entry that may go on
        while True:
            lines = self._new_lines()
            kept += lines
            begun = [i for i, line in enumerate(kept) if formats.parsed(line)] if lines else []
            whole = begun[-1] if begun else 0 if lines else len(kept)
            yield from filter(wanted, formats.entries(iter(kept[:whole])))
            kept = kept[whole:]
            if not lines and not self._turned():
                select.select([], [], [], PAUSE_SECONDS)

    def _new_lines(self) -> list[str]:
        data = self._half + self._file.read(BLOCK_BYTES)
        end = data.rfind(b"\n") + 1
        self._half = data[end:]
        return data[:end].decode(errors="replace").split("\n")[:-1]

    def _turned(self) -> bool:
        """Go on in another file if there is one, or at the beginning of one that was emptied."""
        mine = os.fstat(self._file.fileno())
        if mine.st_size < self._file.tell():
            self._file.seek(0)
            self._half = b""
            return True
        with suppress(OSError):
            there = self._path.stat()
            if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                fresh = self._path.open("rb")
                self._file.close()
                self._file, self._half = fresh, b""
                return True
        return False
