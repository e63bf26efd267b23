"""One process as the master holds it, and how it ended."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from procd.ipc.channel import Channel
from procd.ipc.scoreboard import Role
from procd.ipc.scoreboard import Seat as Sitting
from procd.master.states import Row


@dataclass(slots=True)
class Process:
    """One process as the master holds it."""

    row: Row
    channel: Channel
    pidfd: int = -1
    error: str | None = None  # what it reported before its end
    restarts: int = 0
    forked: float = 0.0  # when its pid was known
    is_shut: bool = False  # accepts no more, and has said so


@dataclass(frozen=True, slots=True)
class Death:
    """A process that is gone."""

    process: Process
    sitting: Sitting
    how: str  # "exit status 3", "SIGKILL"

    @property
    def reason(self) -> str:
        """Why its generation did not come up, in its own words if it had any."""
        who = {Role.TEMPLATE: "the app's import", Role.TASK: "a task worker"}
        name = who.get(self.process.row.seat.role, "a worker")
        return self.process.error or f"{name} ended with {self.how} before it was ready"


def describe(status: int) -> str:
    """Return a wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
