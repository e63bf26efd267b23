"""How a service ends: workers first, then the tasks, then the task workers, then the rest.

Pure. Workers, ingress and gate drain while task workers go on, for they wait for results; what is
queued still runs until the deadline. What is left then stays in the arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from procd.ipc.scoreboard import Role
from procd.master.lifecycle import Want
from procd.master.states import Row

LOOK_SECONDS = 0.05  # between two looks whether tasks are left


@dataclass(slots=True)
class Stopping:
    """The state of a stop; not asked for at first."""

    is_asked: bool = False
    deadline: float = inf
    discards: bool = False
    _tasks_may_go: bool = False

    def ask(self, deadline: float, *, discard: bool) -> None:
        """Ask for the end by *deadline*; asking again can only hurry it."""
        self.is_asked = True
        self.deadline = min(self.deadline, deadline)
        self.discards = self.discards or discard

    def want(self, serving: Want) -> Want:
        """Return what there should be meanwhile."""
        if self._tasks_may_go:
            return Want((), serving.max_draining)
        tasks = tuple(share for share in serving.shares if share.role is Role.TASK and share.serves)
        return Want(tasks, serving.max_draining)

    def advance(
        self,
        rows: Iterable[Row],
        serving: Want,
        count: Callable[[], tuple[int, int]],
        now: float,
    ) -> None:
        """Let the task workers go once nobody needs them. *count* = tasks queued, running."""
        if self._tasks_may_go:
            return
        table = list(rows)
        waiting = (Role.WORKER, Role.INGRESS, Role.GATE)
        if any(row.seat.role in waiting for row in table) and now < self.deadline:
            return
        can_run = any(
            share.role is Role.TASK and share.count for share in self.want(serving).shares
        )
        if now >= self.deadline or self.discards or not can_run or count() == (0, 0):
            self._tasks_may_go = True

    def due(self, now: float) -> float:
        """Return when to look again."""
        if not self.is_asked or self._tasks_may_go:
            return inf
        return min(self.deadline, now + LOOK_SECONDS)
