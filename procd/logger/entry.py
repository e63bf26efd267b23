"""One entry of the log, and how a process hands one to the logger whole. Pure.

What a process prints and what it logs go the same way, its standard error, so that they stay in
order. A record is one line there that begins with RS, as in a JSON text sequence (RFC 7464): level
and time go with it, and the lines of a traceback stay together. Anything else is a printed line.
"""

from __future__ import annotations

import json
import logging
from typing import NamedTuple

RECORD = b"\x1e"
MAX_LINE_BYTES = 64 * 1024  # of a line, and of a record; what is longer is cut
_ROOM = 4 * 1024  # for the rest of a record, and the note

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Who(NamedTuple):
    """Who said it: as `procd status` names processes."""

    role: str
    pid: int
    id: int | None = None  # of workers and task workers
    generation: int | None = None

    @property
    def name(self) -> str:
        """As in `worker 1`."""
        return self.role if self.id is None else f"{self.role} {self.id}"


class Entry(NamedTuple):
    """One entry; its message may have several lines."""

    time: float  # wall clock
    level: str
    who: Who
    message: str


def level_of(number: int) -> str:
    """Return the level's name for one of logging's numbers, an app's own ones too."""
    fitting = (name for name, least in reversed(LEVELS.items()) if number >= least)
    return next(fitting, "debug")


def framed(time: float, level: str, pid: int, message: str) -> bytes:
    """Return a record as one line; a message that is too long is cut, and says so."""
    while True:
        text = json.dumps([round(time, 6), level, pid, message], ensure_ascii=False)
        data = text.encode("utf-8", "backslashreplace")
        if len(data) < MAX_LINE_BYTES:
            return RECORD + data + b"\n"
        share = (MAX_LINE_BYTES - _ROOM) / len(data)
        kept = int(len(message) * share)
        message = f"{message[:kept]} [cut: {len(message) - kept} more characters]"


def unframed(line: bytes) -> tuple[float, str, int, str] | None:
    """Return time, level, pid and message of a record without its newline; None if it is none."""
    try:
        found = json.loads(line[len(RECORD) :])
    except ValueError:
        return None
    match found:
        case [int() | float() as time, str(level), int(pid), str(message)] if level in LEVELS:
            return time, level, pid, message
    return None
