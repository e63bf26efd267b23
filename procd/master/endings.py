"""Tasks that end without a task worker's word: given up, cancelled.

What becomes of a task whose process died is decided here, in one place.
"""

from __future__ import annotations

from dataclasses import dataclass

from procd import logs
from procd.ipc import hints, layout, terms, wire
from procd.ipc.arenafile import ArenaFile
from procd.ipc.arenareader import Slot
from procd.ipc.doorbell import Bell
from procd.ipc.inbox import Post
from procd.ipc.layout import Meta
from procd.ipc.scoreboard import Cell, Scoreboard
from procd.ipc.terms import Terms
from procd.tasks import failure


@dataclass(slots=True)
class Totals:
    """Counters since the master's start of processes that are gone, and the master's own."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    refused: int = 0
    unread: int = 0  # results whose dispatcher, or sender, was gone
    expired: int = 0
    cancelled: int = 0

    def add(self, scoreboard: Scoreboard, row: int) -> None:
        """Add what a process that is gone has counted."""
        self.done += scoreboard.get(row, Cell.DONE)
        self.failed += scoreboard.get(row, Cell.FAILED)
        self.retried += scoreboard.get(row, Cell.RETRIED)
        self.refused += scoreboard.get(row, Cell.REFUSED)
        self.unread += scoreboard.get(row, Cell.UNREAD)
        self.expired += scoreboard.get(row, Cell.EXPIRED)
        self.cancelled += scoreboard.get(row, Cell.CANCELLED)


@dataclass(frozen=True, slots=True)
class End:
    """A task whose process died is not run again."""

    text: str
    kind: str = ""
    how: str = ""  # its process died


def after_crash(
    token: int, meta: Meta, these: Terms, how: str, *, was_overdue: bool, most: int
) -> End | None:
    """Return how a task ends whose process died of it, *how* in words; None: it runs again.

    *these* count the earlier deaths. *most* is the config's task_max_attempts, 0 = any number.
    """
    if these.cancelled == token:
        return End(f"cancelled while it ran; its process was ended ({how})", failure.CANCELLED)
    last = how
    if was_overdue:
        last = f"it ran for longer than its timeout of {these.timeout:g} s and did not stop"
    kind = failure.TIMEOUT if was_overdue else ""
    if meta.flags & terms.AT_MOST_ONCE:
        return End(f"its process died ({last}), and it is not run again (at_most_once)", kind, how)
    attempts, limit = these.crashes + 1, these.max_attempts if most and these.max_attempts else most
    if limit and attempts >= limit:
        name = "max_attempts" if these.max_attempts else "task_max_attempts"
        return End(f"given up after {attempts} attempts ({name}), the last: {last}", kind, how)
    return None


class Endings:
    """Writes failures into slots; has dispatchers told of them, and the ledger."""

    def __init__(self, arena: ArenaFile, scoreboard: Scoreboard, post: Post, ledger: Bell) -> None:
        self.totals = Totals()
        self._arena = arena
        self._scoreboard = scoreboard
        self._post = post
        self._ledger = ledger

    def give_up(self, slot: Slot, end: End) -> None:
        """End a task whose process is dead.

        If nobody wanted that it is left to the ledger: laid where a person finds it, then told
        to its dispatcher.
        """
        if end.kind == failure.CANCELLED:
            self._arena.fail(slot, self._packed(end))
            self.totals.cancelled += 1
            logs.info("task cancelled", id=slot.token, why=end.text)
            self.tell(slot)
            return
        data = self._arena.payload(slot.number)
        self._arena.give_up(slot, self._packed(end))
        self._ledger.ring()
        shown = repr(_value(data))[:500] if data else "too large to show"
        logs.error("task dead", id=slot.token, why=end.text, data=shown)

    def withdraw(self, slot: Slot) -> bool:
        """End a cancelled task that has not begun; False if it is not as it was any more."""
        end = End("cancelled before it began", failure.CANCELLED)
        if not self._arena.withdraw(slot, self._packed(end)):
            return False
        self.totals.cancelled += 1
        self.tell(slot)
        return True

    def _packed(self, end: End) -> bytes:
        return failure.pack(end.text, "", self._arena.layout.slot_bytes, end.kind, end.how)

    def tell(self, slot: Slot) -> None:
        """Tell a dispatcher of a result; one that is gone has its chunks swept."""
        if self._arena.meta(slot.number).flags & layout.DURABLE:
            self._ledger.ring()
        owner = layout.owner_of(self._arena.owner(slot.number))
        hints.tell(self._post, self._scoreboard, *owner, slot.token)


def _value(data: bytes) -> object:
    try:
        return wire.unpack(data)
    except wire.Undecodable:
        return data
