"""How a process hands over tasks and gets their results back.

Its slots come from chunks that it leases; a task is accepted when its slot is written.
The token that follows through the queue, and the hint that comes back, only wake others:
a full queue keeps tokens here until there is room (the timer tries again), and a full
inbox sets MISSED, upon which all of its slots are looked at.

Nothing here blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from procd.errors import InboxFull, ProcdError, TaskFailed, TaskQueueFull
from procd.ipc import inbox, layout, wire, words
from procd.ipc.inbox import Follow, Gone, Outcome, Progress
from procd.ipc.keytable import KeyTaken, hashed
from procd.ipc.layout import MetaValues
from procd.ipc.scoreboard import Cell, Role
from procd.ipc.spool import TASK
from procd.ipc.words import SlotState
from procd.tasks import failure, following
from procd.tasks.acceptance import Acceptance
from procd.tasks.following import Followers, Follows
from procd.tasks.leases import Leases
from procd.tasks.options import PLAIN, Options
from procd.tasks.ref import TaskRef
from procd.tasks.shared import Self, Shared
from procd.tasks.unsent import Unsent

ACCEPTED, QUEUED = Cell.ACCEPTED, SlotState.QUEUED
RETRY_SECONDS = 0.005  # how soon a token that found no room is sent again


@dataclass(slots=True)
class Dispatcher:
    """One process's way out for tasks.

    *on_result* is called with each ref when its result has come; *want_retry* when
    retry() should be called in RETRY_SECONDS; *tell_master* with a kind and a body; *later* with
    seconds and what should be called then.
    """

    shared: Shared
    me: Self
    cells: memoryview
    on_result: Callable[[TaskRef, object, TaskFailed | None], None]
    want_retry: Callable[[], None]
    tell_master: Callable[[str, dict[str, object]], object] = lambda _kind, _body: None
    timeout: float | None = None  # of tasks whose options tell none
    frees_last: bool = False  # a slot: once its result has been heard of
    later: Callable[[float, Callable[[], None]], None] = lambda _seconds, _call: None
    pending: dict[int, TaskRef] = field(default_factory=dict)
    unsent: Unsent = field(default_factory=Unsent)
    unaddressed: list[tuple[int, int]] = field(default_factory=list)  # token, seat number
    room_waiters: list[Callable[[], None]] = field(default_factory=list)
    _by_ledger: set[int] = field(default_factory=set)  # tokens of which it is still to speak
    _retry_asked: bool = False
    followers: Followers = field(init=False)
    follows: Follows = field(init=False)
    _leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        self._leases = Leases(self.shared.arena)
        self.followers = Followers(self.shared)
        self.follows = Follows(self.shared, self.cancel, self._deliver_followed, self.later)

    def dispatch(
        self, payload: bytes, *, flags: int = 0, seat: int = -1, options: Options = PLAIN
    ) -> TaskRef:
        """Accept a task: when this returns, it will run; a durable one when the ledger has it.

        With a key that a live task has, of whomever, this returns a TaskRef of that one.
        Raises TaskQueueFull when no slot is free, MessageTooBig for a payload over
        task_max_bytes, TaskRejected when one that needs a file cannot be stored.
        """
        if options.key is None:
            return self._send_new(payload, flags, seat, options)
        name = str(wire.first(payload)) if flags & layout.NAMED else None
        key = hashed(name, options.key)
        token = self.shared.arena.keys.find(key)
        while True:
            ref = (self.pending.get(token) or self.follows.ref(token)) if token else None
            if ref is not None:
                return ref
            try:
                return self._send_new(payload, flags, seat, options, key)
            except KeyTaken as taken:
                token = taken.token

    def _send_new(
        self, payload: bytes, flags: int, seat: int, options: Options, key: int = 0
    ) -> TaskRef:
        now = time.time()
        more, due, terms = options.pack(now, self.timeout, key)
        me = self.shared.scoreboard.worker_id(self.me.role, self.me.number)
        told = (me, seat, flags | more, options.priority, len(payload), now, 0)
        return self.put(payload, told, due, terms, key)

    def put(
        self,
        payload: bytes,
        told: tuple[int, int, int, int, int, float, int],
        due: float,
        terms: bytes,
        key: int = 0,
    ) -> TaskRef:
        """Accept a task of which *told* is the meta from its sender on; *due* 0 = at once.

        Raises as dispatch(), and KeyTaken if a live task has its *key*.
        """
        arena, (_, seat, flags, priority, _, _, task_id) = self.shared.arena, told
        if len(payload) > arena.layout.slot_bytes:
            arena.spool.check(len(payload), TASK)  # no slot would ever do
        is_held = bool(flags & layout.DURABLE) and not task_id  # else the ledger has it already
        if is_held:
            state = SlotState.HELD
        elif due:
            state = SlotState.DELAYED
        else:
            state = QUEUED if seat < 0 else SlotState.ADDRESSED
        meta = (arena.row, arena.incarnation, *told)
        token = self._accept(payload, meta, state, terms, key)
        if key:
            self.followers.expect(token)
        acceptance = Acceptance(arena, token) if is_held else None
        ref = self.pending[token] = TaskRef(task_id or token, self, acceptance)
        self.cells[ACCEPTED] += 1
        if state is QUEUED:
            self.queue(token, priority)
        else:
            self._send(token, state, seat)
        return ref

    def _send(self, token: int, state: SlotState, seat: int) -> None:
        match state:
            case SlotState.ADDRESSED:
                if not self._try_address(token, seat):
                    self.unaddressed.append((token, seat))
                    self._ask_retry()
            case SlotState.HELD:
                self._by_ledger.add(token)
                self.shared.ledger.ring()
            case SlotState.DELAYED:
                self.tell_master("delayed", {"id": token})

    def _accept(
        self, payload: bytes, meta: MetaValues, state: SlotState, terms: bytes, key: int
    ) -> int:
        arena, slot = self.shared.arena, self._leases.take()
        try:
            if slot is None:
                why = "slots are taken (task_slots): answer busy, or wait with task_wait"
                raise TaskQueueFull(f"all {arena.layout.slots} {why}")
            return arena.accept(slot, payload, meta, state, terms, key)
        except (KeyTaken, ProcdError) as error:
            if slot is not None:
                self._leases.give(slot)
            if not isinstance(error, KeyTaken):
                self.cells[Cell.REFUSED] += 1
            raise

    def cancel(self, token: int) -> bool:
        """Cancel a task, whoever sent it; False if it is over."""
        is_cancelled = self.shared.arena.cancel(token)
        if is_cancelled:
            self.tell_master("cancel", {"id": token})
        return is_cancelled

    def queue(self, token: int, priority: int) -> None:
        """Send a token, behind those that wait already, for their order."""
        if (self.unsent.waiting and self.unsent.holds_up(priority)) or not self._try_send(
            token, priority
        ):
            self.unsent.add(token, priority)
            self._ask_retry()

    @property
    def awaits_ledger(self) -> bool:
        return bool(self._by_ledger)

    @property
    def has_unsent(self) -> bool:
        return bool(self.unsent or self.unaddressed)

    def retry(self) -> None:
        """Send what found no room before; asks for another retry while some is left."""
        self._retry_asked = False
        self.unsent.send(self._try_send)
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

    def take_hint(self, token: int) -> bool:
        """A hint came: take the result in, if it is one of ours and really done."""
        ref = self._looked(token)
        if ref is None or not self.shared.arena.is_done(token):
            return False
        return self._take_in(token, ref)

    def _take_in(self, token: int, ref: TaskRef) -> bool:
        is_owed = self.shared.arena.is_owed(token)  # the ledger tells again
        told = None
        if not ref.is_done:
            try:
                told = self.shared.arena.result(token)
            except layout.Damaged as damaged:
                told = wire.pack([f"its result is damaged: {damaged}", ""]), True
        if is_owed:
            self._by_ledger.add(token)
        else:
            del self.pending[token]
            self._by_ledger.discard(token)
            if not self.frees_last:
                self._free(token)
        if told:
            if token in self.followers.keyed:
                self.followers.tell(token, told[0], following.what(ref, failed=told[1]))
            self._deliver(ref, *told)
        if not is_owed and self.frees_last:
            self._free(token)
        if self.room_waiters and not is_owed:
            self.room_waiters.pop(0)()
        return told is not None

    def _looked(self, token: int) -> TaskRef | None:
        """Return the ref of a task of ours; see whether the ledger has spoken of it."""
        ref = self.pending.get(token)
        if ref is not None and ref.acceptance is not None and ref.acceptance.look():
            self._by_ledger.discard(token)
        return ref

    def _free(self, token: int) -> None:
        self.shared.arena.free(token)
        self._leases.give(words.slot_of(token))

    def take_note(self, item: Follow | Outcome | Progress) -> None:
        """Another process follows a task of ours, tells of one of its, or how far one is."""
        match item:
            case Follow():
                self.followers.ask(*item)
            case Outcome():
                self.follows.take(item)
            case Progress(token, value):
                ref = self.pending.get(token)
                if ref is not None:
                    ref.take_progress(value)

    def look(self) -> int:
        """Take in what is done, whoever could not tell of it; return how many results that were."""
        found = 0
        for chunk in self._leases.chunks():
            for token in self.shared.arena.done(chunk):
                found += self.take_hint(token)
        for token in list(self._by_ledger):
            self.take_hint(token)
        return found

    def _deliver(self, ref: TaskRef, packed: bytes, failed: bool) -> None:  # noqa: FBT001
        value, error = failure.outcome(packed, failed=failed)
        ref.resolve(value, error)
        self.on_result(ref, value, error)

    def _deliver_followed(self, ref: TaskRef, packed: bytes, failed: bool) -> None:  # noqa: FBT001
        ref.resolve(*failure.outcome(packed, failed=failed))
