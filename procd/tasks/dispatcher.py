"""How a process hands over tasks and gets their results back.

Its slots come from chunks that it leases; a task is accepted when its slot is written.
The token that follows through the queue, and the hint that comes back, only wake others:
a full queue keeps tokens here until there is room (the timer tries again), and a full
inbox sets MISSED, upon which all pending slots are looked at.

Nothing here blocks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from procd.errors import InboxFull, ProcdError, TaskFailed, TaskQueueFull
from procd.ipc import inbox, layout, wire, words
from procd.ipc.inbox import Gone
from procd.ipc.layout import Meta
from procd.ipc.scoreboard import Cell, Role
from procd.ipc.spool import TASK
from procd.ipc.words import SlotState
from procd.tasks import failure
from procd.tasks.acceptance import Acceptance
from procd.tasks.leases import Leases
from procd.tasks.ref import TaskRef
from procd.tasks.shared import Self, Shared

RETRY_SECONDS = 0.005  # how soon a token that found no room is sent again
DEFAULT_PRIORITY = 5  # 1 (first) .. 9; the token's message type


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
    _retry_asked: bool = False
    _leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        self._leases = Leases(self.shared.arena)

    def dispatch(
        self,
        payload: bytes,
        *,
        flags: int = 0,
        seat: int = -1,
        priority: int = DEFAULT_PRIORITY,
        task_id: int = 0,
    ) -> TaskRef:
        """Accept a task: when this returns, it will run; a durable one when the ledger has it.

        *task_id* is for the ledger, which has it already and puts it into the arena again.
        Raises TaskQueueFull when no slot is free, MessageTooBig for a payload over
        task_max_bytes, TaskRejected when one that needs a file cannot be stored.
        """
        arena = self.shared.arena
        if len(payload) > arena.layout.slot_bytes:
            arena.spool.check(len(payload), TASK)  # no slot would ever do
        me = self.shared.scoreboard.worker_id(self.me.role, self.me.number)
        told = (me, seat, flags, priority, len(payload), time.time(), task_id)
        is_held = bool(flags & layout.DURABLE) and not task_id
        usual = SlotState.QUEUED if seat < 0 else SlotState.ADDRESSED
        meta = Meta(arena.row, arena.incarnation, *told)
        token = self._accept(payload, meta, SlotState.HELD if is_held else usual)
        acceptance = Acceptance(arena, token) if is_held else None
        ref = self.pending[token] = TaskRef(task_id or token, acceptance)
        self.cells[Cell.ACCEPTED] += 1
        if is_held:
            self.shared.ledger.ring()
        elif seat >= 0:
            if not self._try_address(token, seat):
                self.unaddressed.append((token, seat))
                self._ask_retry()
        else:
            self.queue(token, priority)
        return ref

    def _accept(self, payload: bytes, meta: Meta, state: SlotState) -> int:
        arena, slot = self.shared.arena, self._leases.take()
        try:
            if slot is None:
                why = "slots are taken (task_slots): answer busy, or wait with task_wait"
                raise TaskQueueFull(f"all {arena.layout.slots} {why}")
            return arena.accept(slot, payload, meta, state)
        except ProcdError:
            if slot is not None:
                self._leases.give(slot)
            self.cells[Cell.REFUSED] += 1
            raise

    def queue(self, token: int, priority: int) -> None:
        """Send a token, behind those that wait already, for their order."""
        if self.unsent or not self._try_send(token, priority):
            self.unsent.append((token, priority))
            self._ask_retry()

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
        ref, arena = self.pending.get(token), self.shared.arena
        if ref is not None and ref.acceptance is not None:
            ref.acceptance.look()
        if ref is None or not arena.is_done(token):
            return
        is_owed = arena.is_owed(token)  # the ledger tells again
        told = None if ref.is_done else self._result(token)
        if not is_owed:
            del self.pending[token]
            arena.free(token)
            self._leases.give(words.slot_of(token))
        if told:
            self._deliver(ref, *told)
        if self.room_waiters and not is_owed:
            self.room_waiters.pop(0)()

    def _result(self, token: int) -> tuple[bytes, bool]:
        try:
            return self.shared.arena.result(token)
        except layout.Damaged as damaged:
            return wire.pack([f"its result is damaged: {damaged}", ""]), True

    def take_missed(self) -> None:
        """Look at all pending slots if somebody could not tell; after the inbox is empty."""
        if self.cells[Cell.MISSED]:
            self.cells[Cell.MISSED] = 0  # before the look: a later one sets it again
            for token in list(self.pending):
                self.take_hint(token)

    def _deliver(self, ref: TaskRef, packed: bytes, failed: bool) -> None:  # noqa: FBT001
        value, error = failure.outcome(packed, failed=failed)
        ref.resolve(value, error)
        self.on_result(ref, value, error)
