"""The relay: foreign programs' tasks on their way to task workers, and results on their way back.

Nobody here awaits them: a result is an answer to who asked for one, else it only gives its slot
free.
"""

from __future__ import annotations

from collections.abc import Callable

from procd.errors import TaskFailed
from procd.ipc.foreign.envelope import Reply
from procd.ipc.scoreboard import Role, Standing
from procd.ipc.tally import Count, Tally
from procd.spawn.context import Origin
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.outside import Identity, Outside
from procd.tasks.ref import TaskRef


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
        """*want_retry* and *on_gone* as those of Dispatcher and Outside."""
        self._tally = tally
        outside = Outside(origin, Identity(row, Role.INGRESS), incarnation, on_gone=on_gone)
        outside.shared.arena.spool.max_bytes = max_bytes
        self._outside = outside
        self._scoreboard = outside.shared.scoreboard
        self._replies: dict[int, Reply] = {}  # of tasks that run, by their ids
        self.on_result: Callable[[Reply | None, object, TaskFailed | None], None]
        self.inbox = outside.inbox
        self.dispatcher = Dispatcher(
            *(outside.shared, outside.me, outside.cells),
            on_result=self._finished,
            want_retry=want_retry,
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
        """Take results in."""
        self._outside.read_inbox(self.dispatcher)

    def _finished(self, ref: TaskRef, value: object, error: TaskFailed | None) -> None:
        self.on_result(self._replies.pop(ref.id, None), value, error)

    def close(self) -> None:
        """Leave the inbox."""
        self.inbox.close()
