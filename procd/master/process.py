"""One process as the master holds it, and how it ended."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from procd.ipc.channel import Channel
from procd.ipc.scoreboard import Role
from procd.ipc.scoreboard import Seat as Sitting
from procd.master.lifecycle import Row


@dataclass(slots=True)
class Process:
    """One process as the master holds it."""

    row: Row
    channel: Channel
    pidfd: int = -1
    error: str | None = None  # what it reported before its end
    restarts: int = 0
    is_shut: bool = False  # accepts no more, and has said so


@dataclass(frozen=True, slots=True)
class Death:
    """A process that is gone."""

    process: Process
    sitting: Sitting
    how: str  # "exit status 3", "SIGKILL"

    @property
    def reason(self) -> str:
        """Say why its generation cannot serve, if it died before it was ready."""
        who = {
            Role.TEMPLATE: "the app's import",
            Role.WORKER: "a worker",
            Role.TASK: "a task worker",
        }.get(self.sitting.role, "a process")
        return self.process.error or f"{who} ended with {self.how} before it was ready"


def describe(status: int) -> str:
    """Return a wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
