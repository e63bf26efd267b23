"""The scoreboard: one row for each process, in anonymous shared memory made by the master.

A row is 32 words of 8 bytes. The first two are the master's (who sits here, and how it
stands), the rest belongs to the process; MISSED alone is set by others and cleared by the
process. Words are stored whole, so a reader never sees half of one.

A row with its incarnation is the name of a process inside procd: rows are reused,
incarnations are not.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from procd.ipc import words

ROW_WORDS = 32
_IDENTITY, _STANDING = 0, 1
_USED, _COUNTS = 0, 1  # row 0 is no process's: rows ever used; wanted workers, task workers


class Cell(IntEnum):
    """The words of a row that its process writes."""

    CURRENT = 2  # 0, TAKING, or the token of the task that it has in hand
    MISSED = 3  # somebody could not tell this process of a result: look at all
    CONNECTIONS = 4
    REQUESTS = 5
    ACCEPTED = 6  # tasks dispatched
    DONE = 7
    FAILED = 8
    REFUSED = 9  # tasks for which there was no room
    BAD_MESSAGES = 10  # bytes in the inbox or queue that were none of ours
    UNHANDLED = 11  # pipe messages without a handler
    DEADLINE = 12  # monotonic nanoseconds when the kernel ends it for its task's timeout; 0 = never
    RETRIED = 13  # tasks that failed and are tried again
    EXPIRED = 14  # tasks that nobody began in time
    CANCELLED = 15
    UNREAD = 16  # results of tasks whose sender, outside of the service, is gone


class Role(IntEnum):
    """Which loop a process runs."""

    BASE = 1
    TEMPLATE = 2
    WORKER = 3
    TASK = 4
    SPARE = 5
    INGRESS = 6
    LEDGER = 7
    GATE = 8
    LOGGER = 9


TAKING = 1  # between asking the queue for a token and having it in CURRENT


class Standing(IntEnum):
    """How the process in a row stands, for other processes."""

    EMPTY = 0
    BOOTING = 1
    SERVING = 2
    LEAVING = 3


class Seat(NamedTuple):
    """Who sits in a row."""

    row: int
    incarnation: int
    pid: int
    generation: int
    role: Role
    number: int  # of the seat among those of its role, from 0
    standing: Standing


class Scoreboard:
    """All rows. Made once by the master, inherited by everybody."""

    def __init__(self, rows: int = words.MAX_ROWS) -> None:
        self.rows = rows
        self._map = mmap.mmap(-1, rows * ROW_WORDS * 8)
        self._words = memoryview(self._map).cast("Q")

    # The master's side

    def seat(self, seat: Seat) -> None:
        """Write who sits in a row; clears the process's own words."""
        at = seat.row * ROW_WORDS
        self._words[at + _STANDING] = Standing.EMPTY
        for cell in range(2, ROW_WORDS):
            self._words[at + cell] = 0
        self._words[at + _IDENTITY] = seat.incarnation << 32 | seat.pid
        self._words[at + _STANDING] = (
            seat.generation << 32 | seat.number << 16 | seat.role << 8 | seat.standing
        )
        self._words[_USED] = max(self._words[_USED], seat.row + 1)

    def set_counts(self, workers: int, tasks: int) -> None:
        self._words[_COUNTS], self._words[_COUNTS + 1] = workers, tasks

    def stand(self, row: int, pid: int, standing: Standing) -> None:
        """Change how a row stands."""
        at = row * ROW_WORDS
        self._words[at + _IDENTITY] = self._words[at + _IDENTITY] >> 32 << 32 | pid
        self._words[at + _STANDING] = self._words[at + _STANDING] >> 8 << 8 | standing

    def clear(self, row: int) -> None:
        """Empty a row whose process has been reaped."""
        self._words[row * ROW_WORDS + _STANDING] = Standing.EMPTY

    # Everybody's

    def look(self, row: int) -> Seat | None:
        """Return who sits in a row, None if nobody does."""
        at = row * ROW_WORDS
        standing, identity = self._words[at + _STANDING], self._words[at + _IDENTITY]
        if standing & 0xFF == Standing.EMPTY:
            return None
        return Seat(
            row,
            identity >> 32,
            identity & 0xFFFFFFFF,
            standing >> 32,
            Role(standing >> 8 & 0xFF),
            standing >> 16 & 0xFFFF,
            Standing(standing & 0xFF),
        )

    def seats(self) -> Iterator[Seat]:
        """Every process that is there now."""
        for row in range(1, self._words[_USED]):
            seat = self.look(row)
            if seat is not None:
                yield seat

    def of_pid(self, pid: int) -> Seat | None:
        """Return where a process sits; quicker than seats() where none of ours is meant."""
        for row in range(1, self._words[_USED]):
            if self._words[row * ROW_WORDS + _IDENTITY] & 0xFFFFFFFF == pid:
                seat = self.look(row)
                if seat is not None and seat.pid == pid:
                    return seat
        return None

    def counts(self) -> tuple[int, int]:
        """Return how many workers and task workers there should be."""
        return self._words[_COUNTS], self._words[_COUNTS + 1]

    def address(self, worker_id: int) -> tuple[Role, int] | None:
        """Return the seat that a worker id means now: workers first, then task workers."""
        workers, tasks = self.counts()
        if 0 <= worker_id < workers:
            return Role.WORKER, worker_id
        if workers <= worker_id < workers + tasks:
            return Role.TASK, worker_id - workers
        return None

    def worker_id(self, role: Role, number: int) -> int:
        """Return the worker id that a seat has now; -1 for who is no worker."""
        if role is Role.WORKER:
            return number
        return number + self._words[_COUNTS] if role is Role.TASK else -1

    def find(self, role: Role, number: int, generation: int) -> Seat | None:
        """Return who serves in a seat: in *generation* if it can, else the newest."""
        best = None
        for seat in self.seats():
            if seat.role is not role or seat.number != number:
                continue
            if seat.standing is not Standing.SERVING:
                continue
            if seat.generation == generation:
                return seat
            if best is None or seat.generation > best.generation:
                best = seat
        return best

    def get(self, row: int, cell: Cell) -> int:
        return self._words[row * ROW_WORDS + cell]

    def set(self, row: int, cell: Cell, value: int) -> None:
        self._words[row * ROW_WORDS + cell] = value

    def row(self, row: int) -> memoryview:
        """The words of one row, for its own process: `cells[Cell.REQUESTS] += 1`."""
        return self._words[row * ROW_WORDS : (row + 1) * ROW_WORDS]
