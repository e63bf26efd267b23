"""Following: the result of a task that another process has sent.

Who sends by a key that a live task has gets a TaskRef of that task, whoever sent it. The task's
result stands in a slot of that sender's, who alone takes it out and passes it on:

    follower                                owner of the slot
    follow(token)           ---inbox--->    notes who follows
                            <--inbox---     outcome(token, result), once he takes it in

Any datagram may be lost in a full inbox: the follower looks now and then, and asks again if the
task is over. So the owner keeps the last results of tasks with keys, for who asks late. An
owner that is gone takes nothing in any more: the follower says so, and nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from procd.errors import InboxFull
from procd.ipc import inbox, layout, others
from procd.ipc.arena import Arena
from procd.ipc.inbox import Gone, Outcome, Passed
from procd.ipc.scoreboard import Role
from procd.tasks import failure
from procd.tasks.acceptance import Acceptance
from procd.tasks.ref import TaskRef
from procd.tasks.shared import Shared

KEPT, KEPT_BYTES = 256, 1 << 20  # results of tasks with keys, for who asks late
LOOK_SECONDS = 0.25  # between looks at tasks that are followed
SOON_SECONDS = 0.005  # the same while something could not be sent, or is not accepted yet
_OWNERS = (Role.WORKER, Role.TASK, Role.GATE)  # others read no result

_GONE = "whoever sent it is gone: it runs, its result goes to nobody"
_UNTOLD = "whether it was accepted cannot be told any more: it is over"
_OVER = "it was over before its result could be asked for"
_TOO_LARGE = (
    f"its result is too large to be passed on to another process ({inbox.MAX_MESSAGE_BYTES} bytes)"
)

Told = tuple[bytes, Passed]  # a packed result, and what it is


class FollowedRef(TaskRef):
    """The TaskRef of a task that another process has sent; tells no progress."""

    __slots__ = ("token",)

    def __init__(self, task_id: int, way: ByToken, acceptance: Acceptance | None) -> None:
        super().__init__(task_id, way, acceptance)
        self.token = way.token
        self._seen = True  # a failure is its sender's to log


@dataclass(frozen=True, slots=True)
class ByToken:
    """How a task is cancelled whose id may be another one than its token."""

    token: int
    cancel_token: Callable[[int], bool]

    def cancel(self, _task_id: int) -> bool:
        return self.cancel_token(self.token)


class OthersAcceptance(Acceptance):
    """Whether a durable task of another process is on the disk.

    That one may free its slot before this one looks; then what it tells of the task's end decides.
    """

    __slots__ = ("_hears_owner",)

    def __init__(self, arena: Arena, token: int) -> None:
        super().__init__(arena, token)
        self._hears_owner = True

    def look(self) -> bool:
        if self.is_known or self._arena.is_held(self._token):
            return self.is_known
        match others.ledger_word(self._arena, self._token):
            case layout.REJECTED:
                self._know("not accepted: the ledger could not write it down")
            case layout.SETTLED:
                self._know(None)
            case _ if self._arena.is_live(self._token):
                self._know(None)
            case _ if not self._hears_owner:
                self._know(_UNTOLD)
        return self.is_known

    def settle(self, error: str | None) -> None:
        """Its owner has told how it ended, or never will."""
        if not self.is_known:
            self._know(error)

    def block(self, timeout: float | None) -> None:
        self._hears_owner = False  # whoever blocks reads no inbox
        try:
            super().block(timeout)
        finally:
            self._hears_owner = True


class Followers:
    """The owner's side: who follows tasks of this process."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.keyed: dict[int, set[tuple[int, int]]] = {}  # token -> who follows it
        self._kept: dict[int, Told] = {}  # the last ones, the oldest first
        self._kept_bytes = 0

    def expect(self, token: int) -> None:
        """A task with a key has been sent."""
        self.keyed[token] = set()

    def has(self, token: int) -> bool:
        """Tell whether somebody would miss a task's result."""
        return bool(self.keyed.get(token))

    def ask(self, token: int, row: int, incarnation: int) -> None:
        """Somebody wants to be told of a task's end."""
        if token in self.keyed:
            self.keyed[token].add((row, incarnation))
        elif token in self._kept:
            packed, passed = self._kept[token]
            self._send(inbox.outcome(token, passed, packed), (row, incarnation))
        else:
            self._send(inbox.outcome(token, Passed.OVER), (row, incarnation))

    def tell(self, token: int, packed: bytes, passed: Passed) -> None:
        """A result has been taken in."""
        followers = self.keyed.pop(token, None)
        if followers is None:
            return
        self._keep(token, packed if len(packed) <= inbox.MAX_MESSAGE_BYTES else None, passed)
        for who in followers:
            self._send(inbox.outcome(token, passed, packed), who)

    def _keep(self, token: int, packed: bytes | None, passed: Passed) -> None:
        if packed is None:
            return
        self._kept[token] = packed, passed
        self._kept_bytes += len(packed)
        while len(self._kept) > KEPT or self._kept_bytes > KEPT_BYTES:
            oldest = next(iter(self._kept))
            self._kept_bytes -= len(self._kept.pop(oldest)[0])

    def _send(self, datagram: bytes, who: tuple[int, int]) -> None:
        with suppress(InboxFull, Gone):  # he asks again
            self._shared.post.send(*who, datagram)


@dataclass(slots=True)
class Followed:
    """One task of another process."""

    ref: FollowedRef
    owner: tuple[int, int]  # row and incarnation
    acceptance: OthersAcceptance | None  # of a durable one
    is_asked: bool = False
    is_gone: bool = False  # its owner: what he sent may still lie in the inbox

    @property
    def is_unknown(self) -> bool:
        return self.acceptance is not None and not self.acceptance.is_known


@dataclass(slots=True)
class Follows:
    """The follower's side. *deliver* a packed result to a ref; *later* calls once, in seconds."""

    shared: Shared
    cancel: Callable[[int], bool]
    deliver: Callable[[TaskRef, bytes, bool], None]
    later: Callable[[float, Callable[[], None]], None]
    tasks: dict[int, Followed] = field(default_factory=dict)  # by token
    _is_timed: bool = False

    @property
    def is_awaited(self) -> bool:
        return any(each.ref.is_awaited for each in self.tasks.values())

    def ref(self, token: int) -> TaskRef | None:
        """Return a TaskRef of a live task; None if it is over by now."""
        if token in self.tasks:
            return self.tasks[token].ref
        arena = self.shared.arena
        owner, found = arena.dispatcher(token), others.live_task(arena, token)
        if found is None:
            return None
        task_id, is_durable = found
        acceptance = OthersAcceptance(arena, token) if is_durable else None
        ref = FollowedRef(task_id, ByToken(token, self.cancel), acceptance)
        self.tasks[token] = followed = Followed(ref, owner, acceptance)
        if self._is_there(owner):  # else who has just sent is told a little later
            self._ask(token, followed)
        self._look_later()
        return ref

    def take(self, outcome: Outcome) -> None:
        """A task's owner has told how it ended."""
        followed = self.tasks.get(outcome.token)
        if followed is None:
            return
        match outcome.passed:
            case Passed.OVER:
                self._fail(outcome.token, _OVER)
            case Passed.TOO_LARGE:
                self._end(outcome.token, _failure(followed.ref, _TOO_LARGE), failed=True)
            case Passed.REJECTED:
                _, error = failure.outcome(outcome.packed, failed=True)
                self._end(outcome.token, outcome.packed, failed=True, unaccepted=str(error))
            case passed:
                self._end(outcome.token, outcome.packed, failed=passed is Passed.FAILURE)

    def look(self) -> None:
        """Look at all that is followed: whether to ask again, or to give up."""
        self._is_timed = False
        for token, followed in list(self.tasks.items()):
            self._look(token, followed)
        self._look_later()

    def _look(self, token: int, followed: Followed) -> None:
        if followed.acceptance is not None:
            followed.acceptance.look()
        self._ask(token, followed)

    def _ask(self, token: int, followed: Followed) -> None:
        if not self._is_there(followed.owner):
            if followed.is_gone or not followed.is_asked:
                self._fail(token, _GONE)
            followed.is_gone = True
        elif not followed.is_asked or not self.shared.arena.is_live(token):
            arena: Arena = self.shared.arena
            datagram = inbox.follow(token, arena.row, arena.incarnation)
            with suppress(InboxFull, Gone):
                self.shared.post.send(*followed.owner, datagram)
                followed.is_asked = True

    def _is_there(self, owner: tuple[int, int]) -> bool:
        row, incarnation = owner
        if not 0 < row < self.shared.scoreboard.rows:
            return False  # nobody's, or an orphan's
        seat = self.shared.scoreboard.look(row)
        return seat is not None and seat.incarnation == incarnation and seat.role in _OWNERS

    def _fail(self, token: int, why: str) -> None:
        self._end(token, _failure(self.tasks[token].ref, why), failed=True, unaccepted=_UNTOLD)

    def _end(
        self, token: int, packed: bytes, *, failed: bool, unaccepted: str | None = None
    ) -> None:
        """Hear of it no more; what ended otherwise than *unaccepted* was accepted."""
        followed = self.tasks.pop(token)
        if followed.acceptance is not None:
            followed.acceptance.settle(unaccepted)
        self.deliver(followed.ref, packed, failed)

    def _look_later(self) -> None:
        if self.tasks and not self._is_timed:
            self._is_timed = True
            soon = any(not each.is_asked or each.is_unknown for each in self.tasks.values())
            self.later(SOON_SECONDS if soon else LOOK_SECONDS, self.look)


def what(ref: TaskRef, *, failed: bool) -> Passed:
    """Tell what a task's result is to who follows it."""
    if ref.acceptance is not None and ref.acceptance.error is not None:
        return Passed.REJECTED
    return Passed.FAILURE if failed else Passed.RESULT


def _failure(ref: TaskRef, why: str) -> bytes:
    return failure.pack(f"task {ref.id}: {why}", "", inbox.MAX_MESSAGE_BYTES)
