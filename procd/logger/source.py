"""The entries that one process's bytes make: lines, records, tracebacks, too much of them. Pure.

A line ends with its newline, or with the process. One that is too long is cut; lines that are too
many are held back, and counted.
"""

from __future__ import annotations

from math import inf

from procd.logger.budget import Budget
from procd.logger.entry import MAX_LINE_BYTES, RECORD, Entry, Who, unframed
from procd.logger.joiner import Joiner

FATAL = b"Fatal Python error:"


class Source:
    """What *who* prints. *now* is monotonic, *clock* the wall's."""

    def __init__(self, who: Who, rate: int | None, now: float) -> None:
        self.who = who
        self.budget = Budget(rate, now)
        self._joiner = Joiner()
        self._half = b""  # a line without its end
        self._cut = 0  # bytes of it that were dropped

    def feed(self, data: bytes, now: float, clock: float) -> list[Entry]:
        """Take in what was read; return the entries that are whole."""
        end = data.rfind(b"\n")
        if end < 0:
            self._begin(data)
            return []
        allowed = self.budget.lines(now)
        found: list[Entry] = []
        first, _, rest = data[: end + 1].partition(b"\n")
        self._begin(first)
        line, cut = self._half, self._cut
        self._half, self._cut = b"", 0
        self._begin(data[end + 1 :])
        lines = [line, *rest.split(b"\n", min(allowed, len(rest)))[:-1]] if rest else [line]
        left = rest.count(b"\n") - (len(lines) - 1)
        for number, each in enumerate(lines):
            if not self.budget.take(len(each)):
                left += len(lines) - number
                break
            found += self._line(each, cut if number == 0 else 0, now, clock)
        self.budget.hold(left, now)
        return found

    def _begin(self, data: bytes) -> None:
        room = MAX_LINE_BYTES + 1 - len(self._half)
        self._half += data[:room]
        self._cut += max(0, len(data) - room)

    def _line(self, line: bytes, cut: int, now: float, clock: float) -> list[Entry]:
        printed, mark, record = line.partition(RECORD)
        if mark and (told := unframed(mark + record)) is not None:
            found = self._printed(printed, now, clock) if printed else []
            time, level, pid, message = told
            if not message:  # it only says who it is
                self.who = self.who._replace(pid=pid)
                return found
            entry = Entry(time, level, self.who._replace(pid=pid), message)
            return [*found, *self.flush(clock), entry]
        before, mark, fatal = line.partition(FATAL)  # C code ends no line that stands open
        if before and mark:
            return self._printed(before, now, clock) + self._printed(mark + fatal, now, clock)
        if len(line) > MAX_LINE_BYTES:
            cut += len(line) - MAX_LINE_BYTES
            line = line[:MAX_LINE_BYTES]
        note = f" [cut: {cut:,} more bytes]".encode() if cut else b""
        return self._printed(line + note, now, clock)

    def _printed(self, line: bytes, now: float, clock: float) -> list[Entry]:
        text = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
        return self._entries(self._joiner.add(text, now), clock)

    def _entries(self, told: list[tuple[str, str]], clock: float) -> list[Entry]:
        return [Entry(clock, level, self.who, message) for level, message in told]

    # By time

    @property
    def due(self) -> float:
        """When tick() has something to say; inf = after more bytes only."""
        return min(self._joiner.due, self.budget.due)

    def tick(self, now: float, clock: float) -> list[Entry]:
        """Return what no longer waits for more."""
        return self.flush(clock) if now >= self._joiner.due else []

    def held(self, now: float, *, is_over: bool = False) -> str | None:
        """Return, when it is due, what to say of the lines that were held back."""
        if self.budget.due == inf or (now < self.budget.due and not is_over):
            return None
        lines, seconds = self.budget.report(now)
        plural = "" if lines == 1 else "s"
        return f"held back {lines:,} line{plural} of {self.who.name} in the last {seconds:.1f} s"

    def flush(self, clock: float) -> list[Entry]:
        """Return a traceback that was open."""
        return self._entries(self._joiner.flush(), clock)

    def last_words(self, now: float, clock: float) -> list[Entry]:
        """Return all that is left: the process is gone. A line need not have an end then."""
        found = self.feed(b"\n", now, clock) if self._half or self._cut else []
        return [*found, *self.flush(clock)]
