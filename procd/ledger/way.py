"""The ledger's tasks on their way to task workers: those of others, and those of the file alone.

As a worker does, it leases slots for what it puts into the arena itself (after a power cut, or
when somebody lets a dead letter run again), and sends tokens. Whose result nobody awaits only
gives its slot free.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from procd import logs
from procd.errors import TaskQueueFull, TaskRejected
from procd.ipc import hints
from procd.ipc import layout as lay
from procd.ipc.keytable import KeyTaken
from procd.ipc.scoreboard import TAKING, Cell, Role
from procd.ipc.terms import Terms
from procd.ledger.record import Entry
from procd.ledger.slots import LedgerArena
from procd.ledger.store import Store
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.shared import Shared

NOTHING = 0  # a token that names no task: no epoch is 0
ROOM_SECONDS = 0.02  # until a slot may be free
DISK_SECONDS = 1.0  # until a file may be written
KEY_SECONDS = 0.25  # until a task may be over that has another one's key


@dataclass(slots=True)
class Identity:
    """Who dispatches."""

    row: int
    role: Role = Role.LEDGER
    number: int = 0
    generation: int = 0


class Way:
    """*want_retry* and *tell_master* are those of a Dispatcher. *shared* holds *arena*."""

    def __init__(
        self,
        shared: Shared,
        arena: LedgerArena,
        row: int,
        want_retry: Callable[[], None],
        tell_master: Callable[[str, dict[str, object]], object],
    ) -> None:
        self.waiting: deque[int] = deque()  # tasks to be put into the arena, by their ids
        self._shared = shared
        self._arena = arena
        self._cells = shared.scoreboard.row(row)
        self._tell_master = tell_master
        self._dispatcher = Dispatcher(
            *(shared, Identity(row), self._cells),
            on_result=lambda *_: None,
            want_retry=want_retry,
            tell_master=tell_master,
        )

    def admit(self, tokens: Iterable[int]) -> None:
        """Let held tasks run."""
        # Until the last is sent, a death loses tokens that nobody can name.
        self._cells[Cell.CURRENT] = TAKING
        for token in tokens:
            if self._arena.admit(token):
                self._dispatcher.queue(token, self._arena.meta(token).priority)
            else:
                self._tell_master("delayed", {"id": token})
            self._tell(token)
        self._note_unsent()

    def let_go(self, tokens: Iterable[int], change: Callable[[int], None]) -> None:
        """Change done slots, and have each freed by whose it is."""
        for token in tokens:
            change(token)
            if token in self._dispatcher.pending:
                self._dispatcher.take_hint(token)
            else:
                self._tell(token)

    def tell_all(self) -> None:
        """Have everybody look at all of his slots: an earlier ledger may not have come to tell."""
        for seat in self._shared.scoreboard.seats():
            if seat.role in (Role.WORKER, Role.TASK, Role.GATE):
                to = seat.row, seat.incarnation
                hints.look(self._shared.post, self._shared.scoreboard, *to, NOTHING)

    def _tell(self, token: int) -> None:
        owner = self._arena.dispatcher(token)
        hints.tell(self._shared.post, self._shared.scoreboard, *owner, token)

    def put_in(self, store: Store) -> float | None:
        """Put what waits into the arena, as far as half of it; return when to try again."""
        again = None
        taken: list[int] = []
        self._cells[Cell.CURRENT] = TAKING
        while self.waiting and len(self._dispatcher.pending) < self._arena.layout.slots // 2:
            entry = store.entry(self.waiting[0])
            try:
                if entry is not None:
                    self._dispatch(entry)
            except TaskQueueFull:
                again = ROOM_SECONDS
                break
            except TaskRejected as error:
                logs.error("a task waits in the ledger", id=self.waiting[0], why=error)
                again = DISK_SECONDS
                break
            except KeyTaken:
                taken.append(self.waiting[0])  # its turn comes when that one is over
                again = KEY_SECONDS
            self.waiting.popleft()
        self.waiting.extend(taken)
        self._note_unsent()
        return again

    def _dispatch(self, entry: Entry) -> None:
        flags, size = entry.flags | lay.DURABLE, len(entry.data)
        told = (entry.src_worker_id, -1, flags, entry.priority, size, entry.accepted_at)
        due = entry.due if entry.due > time.time() else 0.0
        key = Terms.key_in(entry.terms)
        token = self._arena.keys.find(key) if key else 0
        if token:
            raise KeyTaken(token)
        self._dispatcher.put(entry.data, (*told, entry.id), due, entry.terms, key)

    def retry(self) -> None:
        """Send what found no room before."""
        self._dispatcher.retry()
        self._note_unsent()

    def _note_unsent(self) -> None:
        self._cells[Cell.CURRENT] = TAKING if self._dispatcher.has_unsent else 0
