"""The pipes through which processes print and log, and who has which end.

- **The writing end** is the process's own standard output and error, and that of whatever it
  starts. The master has it only from the pipe's making until the process is forked.
- **The reading end** is the logger's, and the master keeps it too: a logger that is killed takes
  nothing with it but what it had just read, nobody gets SIGPIPE, and whoever prints meanwhile
  waits at most until the next logger has the same pipes. The master never reads them while the
  service runs; at the end it writes what no logger was left to write.
- A pipe ends when nobody has its writing end any more: the logger says so, and the master lets
  go. A process that is gone is told of at once: its last words wait for nobody who has inherited
  the pipe.
- **The master's own** records go by a socket in place of a pipe, so that each goes whole or not at
  all. If nobody takes them out and it is full, the master writes them itself.
- Killed itself, the master takes all of its processes with it, and what lay in the pipes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from procd import logs
from procd.ipc.channel import MAX_FDS
from procd.ipc.scoreboard import Role, Scoreboard
from procd.logger.entry import MAX_LINE_BYTES, Entry, Who
from procd.logger.source import Source
from procd.master.states import SEATED, Row

MASTER = 0  # the key of its own; the others' are their incarnations
OWN_BYTES = 1024 * 1024  # of records that wait in the master's own
ENDED_READS = 64

Send = Callable[[str, dict[str, object], Sequence[int]], bool]
Told = tuple[int, str, int | None, int | None, int, bool]  # key, role, id, generation, pid, is over


@dataclass(slots=True)
class Output:
    """One pipe. *reader* is -1 where the end is the socket's."""

    reader: int
    row: Row | None  # None: the master's own
    writer: int = -1
    is_over: bool = False  # its process is gone
    is_passed: bool = False  # the logger that runs has its reading end
    told: Told | None = None  # and has been told this of it


class Outputs:
    """Belongs to the master. open() raises OSError."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._reader, self._own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._reader, self._own):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, OWN_BYTES)
        self._all = {MASTER: Output(self._reader.fileno(), None)}
        self._is_new = True  # something is to be told

    # A process's life

    def open(self, row: Row) -> None:
        """Make a pipe for a process that is about to be forked; the logger itself needs none."""
        if row.seat.role is Role.LOGGER or not logs.captures():
            return
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._all[row.incarnation] = Output(reader, row, writer)
        self._is_new = True

    def writer(self, row: Row) -> int:
        """Return the end that the process prints into; -1 if it has none of its own."""
        output = self._all.get(row.incarnation)
        return -1 if output is None else output.writer

    def is_forked(self, row: Row) -> None:
        """It has been, or will not be: the master lets go of the writing end."""
        output = self._all.get(row.incarnation)
        if output is not None and output.writer >= 0:
            os.close(output.writer)
            output.writer = -1

    def named(self, row: Row) -> None:
        """A process has another seat, or a pid."""
        if (output := self._all.get(row.incarnation)) is not None:
            output.row = row
            self._is_new = True

    def counted(self) -> None:
        """The ids of task workers have changed."""
        self._is_new = True

    def over(self, row: Row) -> None:
        """A process is gone, or never was."""
        self.is_forked(row)
        if (output := self._all.get(row.incarnation)) is not None:
            output.row, output.is_over = row, True
            self._is_new = True

    def ended(self, keys: object) -> None:
        """The logger has read these to their ends."""
        for key in keys if isinstance(keys, list) else ():
            if key != MASTER and (output := self._all.pop(key, None)) is not None:
                os.close(output.reader)

    # The logger

    def hand_over(self) -> None:
        """There is a logger: the master's own records are its from now on."""
        logs.hand_over(self._own)

    def take_back(self) -> None:
        """There is none: the next one is told all anew."""
        logs.hand_over(None)
        for output in self._all.values():
            output.is_passed, output.told = False, None
        self._is_new = True

    def tell(self, send: Send) -> None:
        """Pass the logger what it does not have yet."""
        if not self._is_new:
            return
        is_told = True
        new = [key for key, output in self._all.items() if not output.is_passed]
        old = [key for key in self._all if key not in set(new)]
        for kind, keys in (("pipes", new), ("who", old)):
            telling = [key for key in keys if self._all[key].told != self._who(key)]
            for start in range(0, len(telling), MAX_FDS):
                is_told &= self._send(send, kind, telling[start : start + MAX_FDS])
        self._is_new = not is_told

    def _send(self, send: Send, kind: str, keys: Sequence[int]) -> bool:
        whos = [self._who(key) for key in keys]
        fds = [self._all[key].reader for key in keys] if kind == "pipes" else []
        if not send(kind, {"whos": [list(who) for who in whos]}, fds):
            return False
        for key, who in zip(keys, whos, strict=True):
            self._all[key].is_passed, self._all[key].told = True, who
        return True

    def _who(self, key: int) -> Told:
        output = self._all[key]
        row = output.row
        if row is None:
            return (key, "master", None, None, os.getpid(), False)
        role, seat = row.seat.role, row.seat
        number = self._scoreboard.worker_id(role, seat.number) if role in SEATED else None
        generation = seat.generation if role in (*SEATED, Role.TEMPLATE) else None
        return (key, role.name.lower(), number, generation, row.pid, output.is_over)

    # The end

    def close(self) -> None:
        """All have ended: write what no logger has written, and give all ends back."""
        logs.hand_over(None)
        for key in list(self._all):
            logs.write(self._rest(key))
        for key, output in self._all.items():
            if key != MASTER:
                os.close(output.reader)
        self._all.clear()
        self._own.close()
        self._reader.close()

    def _rest(self, key: int) -> list[Entry]:
        _, role, number, generation, pid, _ = self._who(key)
        source = Source(Who(role, pid, number, generation), None, 0)
        entries: list[Entry] = []
        for _ in range(ENDED_READS):
            try:
                data = os.read(self._all[key].reader, 2 * MAX_LINE_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            entries += source.feed(data, time.monotonic(), time.time())
        return entries + source.last_words(time.monotonic(), time.time())
