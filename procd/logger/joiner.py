"""Which printed lines are one entry: Python's tracebacks, and what faulthandler writes. Pure.

Traceback (most recent call last):          opens
  File "app.py", line 3, in <module>        indented: goes on
ValueError: bad                             its last line
                                            unless this follows, and one of the two sentences
During handling of the above exception, another exception occurred:

Fatal Python error: Aborted                 opens, to the last line of that shape
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf

SECONDS = 0.2  # without a further line: that was all
MOST_BYTES = 64 * 1024

_TRACEBACK = "Traceback (most recent call last):"
_CHAINS = ("During handling of the above exception", "The above exception was the direct cause")
# What has no last line of another shape; an exception group's is all drawn with leading spaces.
_FATAL = ("Fatal Python error:", "Timeout (", "  + Exception Group Traceback (most recent")
_DUMPED = (
    *("Thread 0x", "Current thread 0x", "Extension modules:", "Python runtime state:"),
    *("<no Python frame>", "Current thread's C stack", "Binary file"),
)


class _Is(Enum):
    NOTHING = auto()
    TRACEBACK = auto()  # within its frames
    ENDED = auto()  # its last line has come: a chain may follow
    CHAINING = auto()  # and does: a traceback follows
    DUMP = auto()


class Joiner:
    """Takes lines in; gives whole messages out, each with its level."""

    def __init__(self) -> None:
        self.due = inf
        self._is = _Is.NOTHING
        self._lines: list[str] = []
        self._blank = 0  # empty lines that may belong to what goes on
        self._bytes = 0

    def add(self, line: str, now: float) -> list[tuple[str, str]]:
        """Take in one line; return (level, message) of what is complete."""
        if self._goes_on(line):
            self._keep(line, now)
            return self.flush() if self._bytes > MOST_BYTES else []
        done = self.flush()
        if line.startswith((_TRACEBACK, *_FATAL)):
            self._is = _Is.DUMP if line.startswith(_FATAL) else _Is.TRACEBACK
            self._keep(line, now)
            return done
        return [*done, ("info", line)]

    def flush(self) -> list[tuple[str, str]]:
        """Return what is open: nothing more belongs to it."""
        lines, blank = self._lines, self._blank
        self.due, self._is, self._lines = inf, _Is.NOTHING, []
        self._blank = self._bytes = 0
        return [("error", "\n".join(lines))] * bool(lines) + [("info", "")] * blank

    def _keep(self, line: str, now: float) -> None:
        if line:
            self._lines += [""] * self._blank + [line]
            self._blank = 0
        else:
            self._blank += 1
        self._bytes += len(line)
        self.due = now + SECONDS

    def _goes_on(self, line: str) -> bool:
        """Tell whether a line belongs to what is open."""
        is_more = not line
        match self._is:
            case _Is.NOTHING:
                is_more = False
            case _Is.TRACEBACK:
                is_more = True
                if not line.startswith((" ", "\t")):
                    self._is = _Is.ENDED
            case _Is.ENDED if line.startswith(_CHAINS) and self._blank:
                is_more, self._is = True, _Is.CHAINING
            case _Is.ENDED:
                is_more = not line and not self._blank
            case _Is.CHAINING if line.startswith(_TRACEBACK):
                is_more, self._is = True, _Is.TRACEBACK
            case _Is.DUMP:
                is_more = not line or line.startswith((" ", *_DUMPED))
        return is_more
