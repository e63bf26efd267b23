"""A place among the processes for one that dispatches tasks and runs no app: ingress, gate.

As a worker does, it leases slots, sends tokens and is told of results in its inbox. Its tasks are
of no worker (src_worker_id -1).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from procd.ipc import inbox, wire
from procd.ipc.inbox import Follow, Hint, Inbox, Outcome, Progress
from procd.ipc.scoreboard import Cell, Role
from procd.spawn.context import Origin
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.reading import Reading

COMPLAINT_SECONDS = 0.1  # between two that the token queue is gone


@dataclass(slots=True)
class Identity:
    """Who dispatches; of no generation, so that the newest task workers are addressed."""

    row: int
    role: Role
    number: int = 0
    generation: int = 0


class Outside:
    """*on_gone* is called, now and then, while the token queue is not there."""

    def __init__(
        self, origin: Origin, me: Identity, incarnation: int, *, on_gone: Callable[[], None]
    ) -> None:
        self.me = me
        self.shared = origin.open()
        self.shared.arena.become(me.row, incarnation)
        self.shared.tokens.on_gone = self._token_queue_is_gone
        self.cells = self.shared.scoreboard.row(me.row)
        self.inbox = Inbox(origin.ipc_dir, me.row, incarnation)
        self._on_gone = on_gone
        self._complained = -COMPLAINT_SECONDS

    def read_inbox(self, dispatcher: Dispatcher) -> None:
        """Take results in, of which hints tell; then those of which nobody could tell."""

        def take(datagram: memoryview) -> None:
            try:
                item = inbox.parse(datagram)
            except wire.Undecodable:
                item = None
            if isinstance(item, Hint):
                dispatcher.take_hint(item.token)
            elif isinstance(item, Follow | Outcome):
                dispatcher.take_note(item)
            elif not isinstance(item, Progress):  # which nobody listens to here
                self.cells[Cell.BAD_MESSAGES] += 1

        Reading(dispatcher, self.inbox, take).read()

    def _token_queue_is_gone(self) -> None:
        now = time.monotonic()
        if now - self._complained > COMPLAINT_SECONDS:
            self._complained = now
            self._on_gone()
