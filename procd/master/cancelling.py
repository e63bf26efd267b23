"""Cancelling tasks: those that wait never begin, those that run are cut short.

Who cancels marks the slot, so that nobody begins the task any more, and tells the master. That
ends what has not begun, and has the task worker of what runs look at the mark; a process that is
still at it when the grace is over gets SIGKILL, whatever it is stuck in.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from procd import logs
from procd.ipc import terms, words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.arenareader import Slot
from procd.ipc.scoreboard import Cell, Role, Scoreboard
from procd.ipc.words import SlotState
from procd.master.endings import Endings
from procd.master.process import Process

AGAIN_SECONDS = 0.005  # until another try at a slot that somebody looks at
_WAITING = (SlotState.QUEUED, SlotState.ADDRESSED, SlotState.DELAYED)


class Cancelling:
    """What is cancelled and not over. *table* holds the processes by their rows."""

    def __init__(
        self,
        arena: ArenaFile,
        endings: Endings,
        scoreboard: Scoreboard,
        table: Mapping[int, Process],
    ) -> None:
        self._arena = arena
        self._endings = endings
        self._scoreboard = scoreboard
        self._table = table
        self._again: dict[int, float] = {}  # token -> when to look again
        self._kills: dict[int, float] = {}  # token -> when its process is ended

    def cancel(self, token: int, now: float) -> None:
        """Cancel a task, if it is not over. Nothing happens for what is no task."""
        if self._live(token) is not None:
            self._arena.note(words.slot_of(token), terms.CANCELLED_AT, token)
            self._kills[token] = now + terms.CANCEL_GRACE
            self._look(token, now)

    def due(self) -> list[float]:
        """Return the times at which tick() has something to do."""
        return [*self._again.values(), *self._kills.values()]

    def tick(self, now: float) -> None:
        for token in [token for token, at in self._again.items() if now >= at]:
            self._look(token, now)
        for token in [token for token, at in self._kills.items() if now >= at]:
            del self._kills[token]
            process = self._runs(token)
            if process is not None:
                logs.error("killed: its task was cancelled", pid=process.row.pid, id=token)
                _send(process, signal.SIGKILL)

    def _live(self, token: int) -> Slot | None:
        number = words.slot_of(token)
        slot = self._arena.slot(number) if number < self._arena.layout.slots else None
        if slot is None or slot.token != token or slot.state not in words.LIVE:
            return None
        return slot

    def _look(self, token: int, now: float) -> None:
        self._again.pop(token, None)
        slot = self._live(token)
        if slot is None or (slot.state in _WAITING and self._endings.withdraw(slot)):
            self._kills.pop(token, None)
            return
        process = self._runs(token)
        if process is not None:
            _send(process, terms.NUDGE)
        else:
            # Somebody has just begun it, or looks at it, or has died: what has not begun is
            # ended then, and what has sees the mark by itself.
            self._again[token] = now + AGAIN_SECONDS

    def _runs(self, token: int) -> Process | None:
        """Return the process that runs a task."""
        slot = self._live(token)
        if slot is None or slot.state is not SlotState.RUNNING:
            return None
        process = self._table.get(slot.row)
        if process is None or process.row.seat.role is not Role.TASK:
            return None
        return process if self._scoreboard.get(slot.row, Cell.CURRENT) == token else None


def _send(process: Process, signum: int) -> None:
    with suppress(ProcessLookupError):
        if process.pidfd >= 0:
            signal.pidfd_send_signal(process.pidfd, signum)
        elif process.row.pid:
            os.kill(process.row.pid, signum)
