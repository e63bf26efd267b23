"""What becomes of tasks when processes die: the master's side of the task path.

The arena is the truth. A death leaves, at most: a task that was running (once more, or it
has used up its attempts), a token that somebody had in hand (sent again; a doubled one is
harmless), a ring that woke the dead (rung again), results that nobody reads (freed), and
chunks without an owner (swept until their tasks are through), and files in the spool that no
slot tells of (removed).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from procd import logs
from procd.errors import InboxFull
from procd.ipc import inbox, layout, words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.arenareader import Slot, live
from procd.ipc.doorbell import Bell, Doorbell
from procd.ipc.inbox import Gone, Post
from procd.ipc.scoreboard import TAKING, Cell, Role, Scoreboard, Seat
from procd.ipc.spool import RESULT
from procd.ipc.terms import TRIES_AT
from procd.ipc.words import SlotState
from procd.linux.sysv import QueueError, QueueFull
from procd.master import inheritance
from procd.master.delays import Delays
from procd.master.endings import End, Endings, after_crash
from procd.master.successors import Successors
from procd.master.tokenqueue import TokenQueue

RETRY_SECONDS = 0.005
RETRY_TOKENS = 512  # sent at once: the master has other things to do
PRIORITIES = range(1, 10)  # message types of tokens
NANOSECONDS = 1_000_000_000
SWEEP_SECONDS = (0.05, 1.0)  # first and longest pause between looks at orphaned chunks


class Recovery:
    """Owns arena and queue for the master's life."""

    def __init__(
        self,
        arena: ArenaFile,
        tokens: TokenQueue,
        scoreboard: Scoreboard,
        post: Post,
        attempts: int,
    ) -> None:
        self.arena = arena
        self.doorbell = Doorbell()
        self.ledger = Bell()
        self.endings = Endings(arena, scoreboard, post, self.ledger)
        self.totals = self.endings.totals
        self.successors = Successors(arena, scoreboard, post)
        self.delays = Delays(arena)
        self.max_attempts = attempts
        self._scoreboard = scoreboard
        self._post = post
        self._token_queue = tokens
        self._tokens: dict[int, None] = {}  # to be sent when the queue has room, in order
        self._unlocked: list[Slot] = []  # to be queued when somebody lets go of their lock
        self._addressed: list[Slot] = []  # to be told to a seat when somebody sits there
        self._pause = SWEEP_SECONDS[0]
        self.next_retry: float | None = None
        self.next_sweep: float | None = None

    def adopt(self, now: float) -> int:
        """Take over what an earlier master left; return how many tasks will run again.

        No process of that master lives (lease.py), so what was running is queued. It has
        begun once more, but the end was not its own fault: it is never given up for that.
        """
        count = 0
        for chunk, owner in enumerate(self.arena.owners()):
            if owner == layout.NOBODY:
                continue
            for slot in live(self.arena.chunk(chunk)):
                count += self._adopted(slot)
            self.successors.sweep(chunk)
        self._queue_again(is_new=True)
        strange = self.arena.spool.sweep(self.arena.needs)
        if strange:
            folder = self.arena.spool.path
            logs.warning("not procd's, left alone", folder=folder, names=strange[:5])
        self.delays.scan()
        self.retry(now)
        self._schedule_sweep(now)
        return count

    def _adopted(self, slot: Slot) -> bool:
        """Queue what an earlier master left; False if it is not to be run again."""
        if slot.state in (SlotState.HELD, SlotState.DEAD):
            return False  # the ledger's
        if slot.state is SlotState.DELAYED:
            return True
        if slot.state is SlotState.RUNNING and not self._run_again(slot):
            return False
        if slot.state is SlotState.ADDRESSED:
            self.arena.move(slot, SlotState.QUEUED, slot.attempt)
        return True

    def _run_again(self, slot: Slot) -> bool:
        """Queue what was running, when no process is left; False if that was its only run."""
        self.arena.spool.remove(slot.token, RESULT)
        end = self._end(slot, "the service ended", was_overdue=False, most=0)
        if end is not None:
            self.endings.give_up(slot, end)
            return False
        self.arena.move(slot, SlotState.QUEUED, slot.next_attempt)
        return True

    # A death

    def reaped(self, seat: Seat, how: str, now: float, *, blame: bool) -> None:
        """Put right what a reaped process left. *how* tells its end in words.

        *blame*: its running task may have used up its attempts (not when we killed it at a
        stop).
        """
        row = seat.row
        current = self._scoreboard.get(row, Cell.CURRENT)
        self.totals.add(self._scoreboard, row)
        if current == TAKING:
            # It had a token in hand that nobody can name: tell all of them again.
            self._queue_again()
        elif current:
            self._left_in_hand(words.slot_of(current), row, how, now, blame=blame)
        self.readdress()
        self._orphan(layout.owner_word(row, seat.incarnation))
        self.retry(now)
        self._schedule_sweep(now)
        self.ring()

    def _queue_again(self, *, is_new: bool = False) -> None:
        """Have a token sent for each queued task: which ones are lost nobody can say."""
        self._tokens |= dict.fromkeys(self.arena.tokens(SlotState.QUEUED))
        if is_new:  # in their order, which takes ten times as long
            self._tokens = dict.fromkeys(self.arena.oldest_first(self._tokens))

    def _left_in_hand(self, number: int, row: int, how: str, now: float, *, blame: bool) -> None:
        if number >= self.arena.layout.slots:
            return  # foreign bytes that it took for a token
        slot = self.arena.slot(number)
        if slot.state is SlotState.QUEUED:
            self._tokens[slot.token] = None
        elif slot.state is SlotState.DELAYED:
            self.delays.learn(slot.token)
        elif slot.state is SlotState.DONE:
            self.endings.tell(slot)
        elif slot.state is SlotState.DEAD:
            self.ledger.ring()
        elif slot.state is SlotState.RUNNING and slot.row == row:
            self.arena.spool.remove(slot.token, RESULT)  # perhaps half of one
            deadline = self._scoreboard.get(row, Cell.DEADLINE) / NANOSECONDS
            overdue = how == "SIGKILL" and 0 < deadline <= now
            most = self.max_attempts if blame else 0
            end = self._end(slot, how, was_overdue=overdue, most=most)
            if end is not None:
                self.endings.give_up(slot, end)
                return
            self.totals.retried += 1
            if self.arena.requeue(slot, slot.next_attempt):
                self._tokens[slot.token] = None
            else:
                self._unlocked.append(slot)
            logs.warning("task runs again", id=slot.token, attempt=slot.attempt + 2, because=how)

    def _end(self, slot: Slot, how: str, *, was_overdue: bool, most: int) -> End | None:
        """Decide on a task whose process died, and count that death."""
        meta, these = self.arena.meta(slot.number), self.arena.terms(slot)
        end = after_crash(slot.token, meta, these, how, was_overdue=was_overdue, most=most)
        if end is None and most:
            one_more = these._replace(crashes=these.crashes + 1)
            self.arena.note(slot.number, TRIES_AT, one_more.tries)
        return end

    def _orphan(self, owner: int) -> None:
        mine = {chunk for chunk, word in enumerate(self.arena.owners()) if word == owner}
        if not mine:
            return
        # While they are nobody else's: what it stored and did not come to tell of.
        size, needs = self.arena.layout.chunk_slots, self.arena.needs
        self.arena.spool.sweep(lambda t: words.slot_of(t) // size not in mine or needs(t))
        # What it had no room to send, or no time to tell, is known to nobody else.
        self._queue_again()
        self.delays.scan()
        for chunk in mine:
            self.totals.unread += self.successors.sweep(chunk)
        # The heirs look soon: most of what is left is about to run.
        self._pause = SWEEP_SECONDS[0]

    def readdress(self) -> None:
        """Have addressed tasks told again: their task worker went, or a new one serves."""
        found = self.arena.tokens(SlotState.ADDRESSED)
        self._addressed = [self.arena.slot(words.slot_of(token)) for token in found]

    def ring(self) -> None:
        """Ring once for each queued token: an earlier ring may have woken the dead."""
        with suppress(QueueError):
            self.doorbell.ring(self._token_queue.queue.messages)

    def queue_is_missed(self, now: float) -> None:
        """A process did not find the queue: make it anew and refill it from the arena."""
        if self._token_queue.is_gone():
            self._token_queue.remake()  # if that fails, with the first token that is sent
            self._queue_again(is_new=True)
            self.retry(now)

    # Clocks

    def retry(self, now: float) -> None:
        """Send what waits for room; call again at next_retry."""
        for slot in self._unlocked:
            if self.arena.requeue(slot, slot.next_attempt):
                self._tokens[slot.token] = None
        self._unlocked = [slot for slot in self._unlocked if slot.token not in self._tokens]
        for token in list(islice(self._tokens, RETRY_TOKENS)):
            if self.arena.is_queued(token) and not self._send(token):
                break
            del self._tokens[token]
        self._addressed = [slot for slot in self._addressed if not self._address(slot)]
        soon = self._tokens or self._unlocked
        pause = RETRY_SECONDS if soon else 10 * RETRY_SECONDS
        self.next_retry = now + pause if soon or self._addressed else None

    def _send(self, token: int) -> bool:
        try:
            self._token_queue.queue.send(layout.WORD.pack(token), self._priority(token))
        except QueueFull:
            return False
        except QueueError:
            # Should it be gone, a new one is refilled with whatever is queued.
            if self._token_queue.is_gone() and self._token_queue.remake():
                self._queue_again(is_new=True)
            return False
        self.doorbell.ring()
        return True

    def _priority(self, token: int) -> int:
        priority = self.arena.meta(words.slot_of(token)).priority
        return priority if priority in PRIORITIES else PRIORITIES[-1]

    def _address(self, slot: Slot) -> bool:
        if self.arena.slot(slot.number) != slot:
            return True
        number = self.arena.meta(slot.number).dst_worker_id
        if not 0 <= number < self._scoreboard.counts()[1]:  # of no seat, or damaged: to any
            if not self.arena.unaddress(slot):
                return False  # it is looked at this moment: another try tells whether it runs
            self._tokens[slot.token] = None
            return True
        seat = self._scoreboard.find(Role.TASK, number, 0)
        if seat is None:
            return False
        try:
            self._post.send(seat.row, seat.incarnation, inbox.addressed(slot.token))
        except (InboxFull, Gone):
            return False
        return True

    def sweep(self, now: float) -> None:
        """Free the results of tasks whose dispatcher is gone; call again at next_sweep."""
        for chunk, word in enumerate(self.arena.owners()):
            if word == layout.ORPHAN:
                self.totals.unread += self.successors.sweep(chunk)
        self._pause = min(SWEEP_SECONDS[1], self._pause * 2)
        self._schedule_sweep(now)

    def sweep_soon(self, now: float) -> None:
        """Have slots freed with which a successor is through."""
        self.next_sweep = min(self.next_sweep or now, now + SWEEP_SECONDS[0])

    def _schedule_sweep(self, now: float) -> None:
        self.successors.tell()
        orphans = layout.ORPHAN in self.arena.owners()
        self.next_sweep = now + self._pause if orphans else None

    def due(self) -> Iterable[float]:
        """Return the times at which tick() has something to do."""
        times = (self.next_retry, self.next_sweep, self.delays.next_look)
        return [at for at in times if at is not None]

    def tick(self, now: float) -> None:
        if self.delays.next_look is not None and now >= self.delays.next_look:
            self._tokens |= dict.fromkeys(self.delays.take())
            self.retry(now)
        if self.next_retry is not None and now >= self.next_retry:
            self.retry(now)
        if self.next_sweep is not None and now >= self.next_sweep:
            self.sweep(now)

    # The end

    def close(self, ids_file: Path, *, discard: bool) -> int:
        """All others are gone: remove the queue, and an empty arena; return how many are kept."""
        if self.arena.lost:
            self._token_queue.remove()
            inheritance.set_arena_aside(self.arena.path, self.arena.lost)
            self.arena.close()
            return 0
        for slot in list(self.arena.in_use()):
            if slot.state is SlotState.RUNNING:
                self._run_again(slot)
        for chunk in range(self.arena.layout.chunks):
            if discard:
                for slot in live(self.arena.chunk(chunk)):
                    if slot.state is not SlotState.DEAD:
                        self.arena.move(slot, SlotState.FREE)
            (self.arena if discard else self.successors).sweep(chunk)
        kept = sum(self.arena.count()) + len(self.arena.tokens(SlotState.DELAYED))
        self.arena.spool.sweep(self.arena.needs)
        inheritance.write_floor(ids_file, self.arena.last_epoch() + 1)
        self._token_queue.remove()
        inheritance.leave(self.arena, is_empty=not any(self.arena.states()))
        self.arena.close()
        return kept
