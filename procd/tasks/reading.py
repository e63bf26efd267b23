"""How a process hears of its results: told of each, or looking for them while they stream in.

A hint costs two system calls. Where several results come in one turn of the loop, the process
looks at its slots once a turn instead, and says so: MISSED stands meanwhile, and nobody hints (see
ipc.hints). The first turn without a result ends that.
"""

from __future__ import annotations

from collections.abc import Callable

from procd.ipc.inbox import Inbox
from procd.ipc.scoreboard import Cell
from procd.tasks.dispatcher import Dispatcher

MOST = 64  # datagrams read in one turn of the loop
STREAM = 4  # results in one turn

Take = Callable[[memoryview], object]


class Reading:
    """*take* is called with what is in the inbox; *soon* calls in the next turn of the loop."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        box: Inbox,
        take: Take,
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._cells = dispatcher.cells
        self._inbox = box
        self._take = take
        self._may_look = soon is not None
        self._soon = soon or (lambda _call: None)
        self._looks = False  # in the next turn
        self._is_over = False

    def end(self) -> None:
        """The inbox is about to be closed."""
        self._is_over = True

    def read(self) -> None:
        """Take in what others told; then, if they could not tell of all, what is there."""
        cells, found = self._cells, 0
        while True:
            is_missed = cells[Cell.MISSED]
            if is_missed:
                cells[Cell.MISSED] = 0  # before the look: a later one sets it again
            count = self._drain()
            found += count
            if is_missed:
                found += self._dispatcher.look()
            if count == MOST or not cells[Cell.MISSED]:
                break
        if found >= STREAM and self._may_look and not self._looks:
            self._look_on()

    def _drain(self) -> int:
        for count in range(MOST):
            datagram = self._inbox.receive()
            if datagram is None:
                return count
            self._take(datagram)
        return MOST

    def _look_on(self) -> None:
        self._looks = not self._dispatcher.awaits_ledger  # which tells, whatever streams in
        if self._looks:
            self._cells[Cell.MISSED] = 1
            self._soon(self._look)

    def _look(self) -> None:
        if self._is_over:
            return
        if self._dispatcher.look():
            self._look_on()
        else:
            self._looks = False
        if not self._looks:
            self.read()  # which clears MISSED first
