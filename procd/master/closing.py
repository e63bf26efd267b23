"""After a switch: the old processes that have not said yet that they are shut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from procd.master.asked import Outcome
from procd.master.process import Process
from procd.master.reload import ACK_SECONDS


class Closing:
    """Holds a reload's answer until no old worker accepts any more, or ACK_SECONDS long."""

    def __init__(self) -> None:
        self.due = inf
        self._processes: list[Process] = []
        self._answer: Outcome | None = None

    def __bool__(self) -> bool:
        return self._answer is not None

    def begin(self, processes: Iterable[Process], answer: Outcome, now: float) -> None:
        self._processes = list(processes)
        self._answer = answer
        self.due = now + ACK_SECONDS

    def over(self, table: Mapping[int, Process], now: float) -> Outcome | None:
        """Return the answer, once, when it may be given."""
        self._processes = [
            process
            for process in self._processes
            if table.get(process.row.row) is process and not process.is_shut
        ]
        if self._answer is None or (self._processes and now < self.due):
            return None
        answer, self._answer = self._answer, None
        self._processes, self.due = [], inf
        return answer
