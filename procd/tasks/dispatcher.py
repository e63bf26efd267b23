"""How a process hands over tasks and gets their results back.

Its slots come from chunks that it leases; a task is accepted when its slot is written.
The token that follows through the queue, and the hint that comes back, only wake others:
a full queue keeps tokens here until there is room (the timer tries again), and a full
inbox sets MISSED, upon which all pending slots are looked at.

Nothing here blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from procd.errors import InboxFull, ProcdError, TaskFailed, TaskQueueFull
from procd.ipc import inbox, layout, wire, words
from procd.ipc.arena import Arena
from procd.ipc.doorbell import Doorbell
from procd.ipc.inbox import Gone, Post
from procd.ipc.scoreboard import Cell, Role, Scoreboard
from procd.ipc.spool import TASK
from procd.tasks import failure
from procd.tasks.ref import TaskRef
from procd.tasks.tokens import Tokens

RETRY_SECONDS = 0.005  # how soon a token that found no room is sent again
DEFAULT_PRIORITY = 5  # 1 (first) .. 9; the token's message type


@dataclass(slots=True)
class Shared:
    """What all processes share, as one of them holds it."""

    arena: Arena
    tokens: Tokens
    doorbell: Doorbell
    post: Post
    scoreboard: Scoreboard


class Self(Protocol):
    """Who this process is."""

    role: Role
    number: int
    generation: int
    row: int


@dataclass(slots=True)
class Dispatcher:
    """One process's way out for tasks.

    *on_result* is called with each ref when its result has come; *want_retry* when
    retry() should be called in RETRY_SECONDS.
    """

    shared: Shared
    me: Self
    cells: memoryview
    on_result: Callable[[TaskRef, object, TaskFailed | None], None]
    want_retry: Callable[[], None]
    pending: dict[int, TaskRef] = field(default_factory=dict)
    unsent: deque[tuple[int, int]] = field(default_factory=deque)  # token, priority
    unaddressed: list[tuple[int, int]] = field(default_factory=list)  # token, seat number
    room_waiters: list[Callable[[], None]] = field(default_factory=list)
    _free: dict[int, deque[int]] = field(default_factory=dict)  # chunk -> free slots
    _retry_asked: bool = False

    def dispatch(
        self, payload: bytes, *, flags: int = 0, seat: int = -1, priority: int = DEFAULT_PRIORITY
    ) -> TaskRef:
        """Accept a task: when this returns, it will run.

        Raises TaskQueueFull when no slot is free, MessageTooBig for a payload over
        task_max_bytes, TaskRejected when one that needs a file cannot be stored.
        """
        arena = self.shared.arena
        if len(payload) > arena.layout.slot_bytes:
            arena.spool.check(len(payload), TASK)  # no slot would ever do
        slot = self._take_slot()
        me = self.shared.scoreboard.worker_id(self.me.role, self.me.number)
        to = {"worker_id": me, "dst": seat, "flags": flags, "priority": priority}
        try:
            token = arena.accept(slot, payload, **to)
        except ProcdError:
            self._give_slot(slot)
            self.cells[Cell.REFUSED] += 1
            raise
        ref = self.pending[token] = TaskRef(token)
        self.cells[Cell.ACCEPTED] += 1
        if seat >= 0:
            if not self._try_address(token, seat):
                self.unaddressed.append((token, seat))
                self._ask_retry()
        # Behind those that wait already, for their order.
        elif self.unsent or not self._try_send(token, priority):
            self.unsent.append((token, priority))
            self._ask_retry()
        return ref

    def _take_slot(self) -> int:
        for slots in self._free.values():
            if slots:
                return slots.popleft()
        leased = self.shared.arena.lease()
        if not leased:
            self.cells[Cell.REFUSED] += 1
            raise TaskQueueFull(
                f"all {self.shared.arena.layout.slots} slots are taken (task_slots): answer "
                "busy, or wait with task_wait"
            )
        slots = deque(leased)
        self._free[leased[0] // self.shared.arena.layout.chunk_slots] = slots
        return slots.popleft()

    def _give_slot(self, slot: int) -> None:
        chunk = slot // self.shared.arena.layout.chunk_slots
        slots = self._free[chunk]
        slots.append(slot)
        if len(slots) < self.shared.arena.layout.chunk_slots:
            return
        # A whole chunk is free: others may need it more, if another one still has room.
        if any(other is not slots and other for other in self._free.values()):
            del self._free[chunk]
            self.shared.arena.give_back(chunk)

    @property
    def has_unsent(self) -> bool:
        return bool(self.unsent or self.unaddressed)

    def retry(self) -> None:
        """Send what found no room before; asks for another retry while some is left."""
        self._retry_asked = False
        while self.unsent and self._try_send(*self.unsent[0]):
            self.unsent.popleft()
        self.unaddressed = [item for item in self.unaddressed if not self._try_address(*item)]
        if self.has_unsent:
            self._ask_retry()

    def _ask_retry(self) -> None:
        if not self._retry_asked:
            self._retry_asked = True
            self.want_retry()

    def _try_send(self, token: int, priority: int) -> bool:
        sent = self.shared.tokens.send(token, priority)
        # Also when it is full: should it be so of garbage, somebody must come and see.
        self.shared.doorbell.ring()
        return sent

    def _try_address(self, token: int, number: int) -> bool:
        seat = self.shared.scoreboard.find(Role.TASK, number, self.me.generation)
        if seat is None:
            # Nobody sits there now. The master may have given the task to any by then.
            return not self.shared.arena.is_addressed(token)
        try:
            self.shared.post.send(seat.row, seat.incarnation, inbox.addressed(token))
        except (InboxFull, Gone):
            return False
        return True

    # Results

    def take_hint(self, token: int) -> None:
        """A hint came: take the result in, if it is one of ours and really done."""
        ref = self.pending.get(token)
        if ref is None or not self.shared.arena.is_done(token):
            return
        del self.pending[token]
        try:
            packed, failed = self.shared.arena.result(token)
        except layout.Damaged as damaged:
            packed, failed = wire.pack([f"its result is damaged: {damaged}", ""]), True
        self.shared.arena.free(token)
        self._give_slot(words.slot_of(token))
        self._deliver(ref, packed, failed=failed)
        if self.room_waiters:
            self.room_waiters.pop(0)()

    def take_missed(self) -> None:
        """Look at all pending slots if somebody could not tell; after the inbox is empty."""
        if self.cells[Cell.MISSED]:
            self.cells[Cell.MISSED] = 0  # before the look: a later one sets it again
            for token in list(self.pending):
                self.take_hint(token)

    def _deliver(self, ref: TaskRef, packed: bytes, *, failed: bool) -> None:
        value, error = failure.outcome(packed, failed=failed)
        ref.resolve(value, error)
        self.on_result(ref, value, error)
