"""After a switch: the old processes that have not said yet that they are shut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

from procd.ipc.scoreboard import Role
from procd.master.asked import Outcome
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.reload import ACK_SECONDS
from procd.master.states import State


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


def give_rest(fds: Sequence[int], processes: Processes, generation: int) -> None:
    """Let a worker of *generation* accept what nobody has, on listeners that are to be closed.

    The old workers should have; who died or is stuck has not. The message itself holds the
    listeners open until it is read.
    """
    for process in processes.table.values() if fds else ():
        row = process.row
        is_theirs = row.seat.role is Role.WORKER and row.seat.generation == generation
        if is_theirs and row.state is State.SERVING and processes.send(process, "rest", {}, fds):
            return
