"""The relay: foreign programs' tasks on their way to task workers, and results on their way back.

As a worker does, it leases slots, sends tokens and is told of results in its inbox. The tasks
are of no worker (src_worker_id -1), and nobody here awaits them: a result is an answer to who
asked for one, else it only gives its slot free.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from procd.errors import TaskFailed
from procd.ipc import inbox, wire
from procd.ipc.foreign.envelope import Reply
from procd.ipc.inbox import Hint, Inbox, Progress
from procd.ipc.scoreboard import Cell, Role, Standing
from procd.ipc.tally import Count, Tally
from procd.spawn.context import Origin
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.ref import TaskRef

BATCH = 64  # datagrams read in one turn of the loop
COMPLAINT_SECONDS = 0.1  # between two that the token queue is gone


@dataclass(slots=True)
class Identity:
    """Who dispatches; of no generation, so that the newest task workers are addressed."""

    row: int
    role: Role = Role.INGRESS
    number: int = 0
    generation: int = 0


class Relay:
    """*on_result* is called for each task that is over, with the reply that is owed, if any."""

    def __init__(
        self,
        origin: Origin,
        tally: Tally,
        row: int,
        incarnation: int,
        *,
        max_bytes: int,
        want_retry: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        """*want_retry* and *on_gone* as those of Dispatcher and Tokens."""
        self._tally = tally
        shared = origin.open()
        shared.arena.become(row, incarnation)
        shared.arena.spool.max_bytes = max_bytes
        shared.tokens.on_gone = self._token_queue_is_gone
        self._scoreboard = shared.scoreboard
        self._cells = shared.scoreboard.row(row)
        self._on_gone = on_gone
        self._complained = -COMPLAINT_SECONDS
        self._replies: dict[int, Reply] = {}  # of tasks that run, by their ids
        self.on_result: Callable[[Reply | None, object, TaskFailed | None], None]
        self.inbox = Inbox(origin.ipc_dir, row, incarnation)
        self.dispatcher = Dispatcher(
            *(shared, Identity(row), self._cells), on_result=self._finished, want_retry=want_retry
        )

    @property
    def owes_answers(self) -> bool:
        return bool(self._replies)

    def store(self, payload: bytes, mtype: int, reply: Reply | None) -> None:
        """Accept a task; raises what Dispatcher.dispatch does."""
        seat = self._seat(mtype)
        ref = self.dispatcher.dispatch(payload, seat=seat)
        if reply is not None:
            self._replies[ref.id] = reply
        if seat < 0:
            self._tally.count(Count.UNADDRESSED)

    def _seat(self, mtype: int) -> int:
        """Return which task worker a message's type names, by its id + 1 or its pid; -1 = none."""
        address = self._scoreboard.address(mtype - 1)
        if address is not None:
            return address[1] if address[0] is Role.TASK else -1
        seat = self._scoreboard.of_pid(mtype)
        if seat is None or seat.role is not Role.TASK or seat.standing is not Standing.SERVING:
            return -1
        return seat.number

    def read_inbox(self) -> None:
        """Take results in, of which hints tell; then those of which nobody could tell."""
        for _ in range(BATCH):
            datagram = self.inbox.receive()
            if datagram is None:
                break
            try:
                item = inbox.parse(datagram)
            except wire.Undecodable:
                item = None
            if isinstance(item, Hint):
                self.dispatcher.take_hint(item.token)
            elif not isinstance(item, Progress):  # which nobody listens to here
                self._cells[Cell.BAD_MESSAGES] += 1
        self.dispatcher.take_missed()

    def _finished(self, ref: TaskRef, value: object, error: TaskFailed | None) -> None:
        self.on_result(self._replies.pop(ref.id, None), value, error)

    def _token_queue_is_gone(self) -> None:
        now = time.monotonic()
        if now - self._complained > COMPLAINT_SECONDS:
            self._complained = now
            self._on_gone()

    def close(self) -> None:
        """Leave the inbox."""
        self.inbox.close()
