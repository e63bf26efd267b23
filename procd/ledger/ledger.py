"""The ledger: the process that alone writes the file of tasks that must not be lost.

It runs no app code and imports none, so no reload concerns it. The file is opened with the
master's rights, then the process becomes `user`: what the app's processes may not open they
cannot spoil. One wait for everything: the bell (a slot of the arena waits for it), the master's
word, and its timers. The bell only wakes: what is to be done the arena says, and it says the
same to the next ledger if this one is killed.

What waits together is one transaction: while the disk syncs one, the next gathers.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

from procd import logs
from procd.config.schema import Config
from procd.ipc import layout as lay
from procd.ipc import wire
from procd.ipc.channel import Channel, Closed, Packet
from procd.ipc.inbox import Inbox
from procd.ipc.layout import Damaged
from procd.ledger.faults import LedgerDamaged, LedgerError
from procd.ledger.livedesk import LiveDesk
from procd.ledger.record import Entry
from procd.ledger.schema import State
from procd.ledger.slots import Found, LedgerArena, task_id
from procd.ledger.store import open_store
from procd.ledger.way import Way
from procd.linux import process
from procd.spawn import stacks
from procd.spawn.context import Origin
from procd.tasks.dispatcher import RETRY_SECONDS

GATHER_SECONDS = 0.001  # before a commit that follows hard upon another
BUSY_SECONDS = 0.005  # what hard upon means
BATCH_BYTES = 8 << 20  # of data in one transaction
BATCH_TASKS = 1000
AGAIN_SECONDS = 1.0  # until what the disk refused is tried again


class Ledger:
    """run() is the life of a ledger, forked by the master."""

    def __init__(self, origin: Origin, channel: Channel, row: int, incarnation: int) -> None:
        self._origin = origin
        self._channel = channel
        self._row, self._incarnation = row, incarnation
        self._timers: dict[Callable[[], None], float] = {}
        self._committed = -inf
        self._letters = -1
        self._looks = True  # something may wait
        self._trouble = ""
        self._drain: Packet | None = None

    def run(self, config: Config, path: Path) -> int:
        """Serve until told to go; return the exit status."""
        logs.name_process("ledger")
        process.set_name("procd: ledger")
        try:
            self._store = open_store(path)
        except LedgerError as error:
            logs.error("no ledger", why=error)
            self._channel.send("failed", {"error": str(error)})
            return 1
        process.drop_privileges(config.user, config.group)
        process.die_with_parent()  # a change of uid has cleared it
        if os.getppid() != self._origin.master_pid:
            return 0
        stacks.answer(self._origin.ipc_dir)
        self._open()
        self._channel.send("ready")
        try:
            self._adopt()
            self._serve()
            self._leave()
        except Closed:
            return 1  # no master, no service
        except LedgerError as error:
            logs.error("ledger given up", why=error)  # one that is damaged the next sets aside
            return 1
        return 0

    def _open(self) -> None:
        origin = self._origin
        arena = self._arena = LedgerArena(origin.arena_fd, origin.layout, origin.spool)
        arena.become(self._row, self._incarnation)
        arena.spool.max_bytes = 1 << 62  # what was accepted once is not refused now
        shared = origin.open(arena)
        shared.tokens.on_gone = lambda: self._channel.send("queue is gone")
        self._bell = shared.ledger
        self._inbox = Inbox(origin.ipc_dir, self._row, self._incarnation)
        self._way = Way(
            *(shared, arena, self._row),
            want_retry=lambda: self._later(self._way.retry, RETRY_SECONDS),
            tell_master=self._channel.send,
        )
        self._desk = LiveDesk(
            *(self._store, arena, self._way.waiting, self._feed_more, self._cancel)
        )

    def _adopt(self) -> None:
        """Compare file and arena: what either has and the other lacks."""
        there: set[int] = set()
        known = set(self._store.queued())
        unknown, cancelled = [], []
        for token, _, _, meta in self._arena.live():
            if meta.flags & lay.DURABLE:
                number = task_id(token, meta)
                there.add(number)
                if number not in known and not self._arena.is_held(token):
                    unknown.append(token)  # the file was damaged, or is another one
        found = self._arena.look()  # after that: what has come to its end since is among these
        there |= {task_id(t, self._arena.meta(t)) for t in (*found.dead, *found.over)}
        for token in unknown:
            record = self._store.show(task_id(token, self._arena.meta(token)))
            if record is not None and record.state is State.CANCELLED:
                cancelled.append(token)  # while no service ran
        self._store.commit(accepted=self._entries(unknown))
        for token in cancelled:
            self._cancel(token)
        self._feed_more([number for number in self._store.queued() if number not in there])
        self._way.tell_all()

    def _serve(self) -> None:
        poll = select.poll()
        readers = {
            self._channel.fileno(): self._read_channel,
            self._inbox.fileno(): self._read_inbox,
            self._bell.fd: self._read_bell,
        }
        for fd in readers:
            poll.register(fd, select.POLLIN)
        while self._drain is None:
            if self._looks:
                self._work()
            for fd, _ in poll.poll(self._wait_ms()):
                readers[fd]()
            self._run_timers()

    # Clocks

    def _later(self, call: Callable[[], None], seconds: float) -> None:
        self._timers.setdefault(call, time.monotonic() + seconds)

    def _wait_ms(self) -> float | None:
        if self._looks:
            return 0
        due = min(self._timers.values(), default=inf)
        return None if due == inf else max(0.0, due - time.monotonic()) * 1000

    def _run_timers(self) -> None:
        now = time.monotonic()
        for call in [call for call, at in self._timers.items() if at <= now]:
            del self._timers[call]
            call()

    def _look_again(self) -> None:
        self._looks = True

    def _read_bell(self) -> None:
        self._looks = self._bell.answer() or self._looks

    def _read_inbox(self) -> None:
        while self._inbox.receive() is not None:
            self._looks = True  # a result of a task that was put in from here

    # Writing down

    def _work(self) -> None:
        """Write down what waits in the arena, then let it go on."""
        if time.monotonic() - self._committed < BUSY_SECONDS:
            select.select([], [], [], GATHER_SECONDS)
        self._looks = False
        self._bell.answer()
        found = self._arena.look()
        if any(found):
            try:
                self._write(found)
                self._note_trouble("")
            except LedgerDamaged:
                raise
            except LedgerError as error:
                self._cannot_write(found, error)
            self._committed = time.monotonic()
        self._put_in()

    def _write(self, found: Found) -> None:
        over = found.over
        for tokens in self._batches(found.held) or [[]]:
            ended = [self._arena.ending(token) for token in over]
            self._store.commit(accepted=self._entries(tokens), ended=ended)
            self._way.admit(tokens)
            self._way.let_go(over, self._arena.settle)
            over = []
        for tokens in self._batches(found.dead):
            self._store.commit(buried=[self._arena.letter(token) for token in tokens])
            self._way.let_go(tokens, self._arena.bury)
        if found.dead:
            self._tell_letters()

    def _batches(self, tokens: list[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        size = BATCH_BYTES
        for token in tokens:
            if size >= BATCH_BYTES or len(batches[-1]) == BATCH_TASKS:
                batches.append([])
                size = 0
            batches[-1].append(token)
            size += self._arena.meta(token).payload_bytes
        return batches

    def _entries(self, tokens: list[int]) -> list[Entry]:
        """Read tasks. One whose data cannot be read fails when it is run, with the reason."""
        entries: list[Entry] = []
        for token in tokens:
            try:
                entries.append(self._arena.entry(token))
            except Damaged as damaged:
                logs.error("task damaged", id=token, why=damaged)
        return entries

    def _cannot_write(self, found: Found, error: LedgerError) -> None:
        """Refuse what is new, its sender is told; the rest keeps its slots, and is tried again."""
        self._note_trouble(str(error))
        limit = self._arena.layout.slot_bytes // 4
        packed = wire.pack([f"not accepted: {error}"[:limit], ""])
        held = [token for token in found.held if self._arena.is_held(token)]
        self._way.let_go(held, lambda token: self._arena.refuse(token, packed))
        self._later(self._look_again, AGAIN_SECONDS)

    def _note_trouble(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            if why:
                logs.error("ledger not written", why=why)
            self._channel.send("failed", {"error": why})

    def _tell_letters(self) -> None:
        """Tell the master how many dead letters lie here."""
        letters = self._store.counts().get(State.DEAD, 0)
        if letters != self._letters:
            self._letters = letters
            self._channel.send("letters", {"count": letters})

    def _cancel(self, token: int) -> bool:
        """Cancel a task in the arena; False if it is over."""
        is_cancelled = self._arena.cancel(token)
        if is_cancelled:
            self._channel.send("cancel", {"id": token})
        return is_cancelled

    # Putting into the arena

    def _feed_more(self, ids: Sequence[int]) -> None:
        self._way.waiting.extend(ids)
        self._looks = self._looks or bool(ids)

    def _put_in(self) -> None:
        again = self._way.put_in(self._store)
        if again is not None:
            self._later(self._look_again, again)

    # The master's word

    def _read_channel(self) -> None:
        packet = self._channel.receive()
        if packet is None:
            return
        match packet.kind:
            case "serve":
                self._channel.send("serving")
                self._tell_letters()
            case "ask":
                self._answer(packet)
            case "drain":
                self._drain = packet
            case "log":
                logs.ordered(packet.body.get("level"), packet.fds)

    def _answer(self, packet: Packet) -> None:
        answer = self._desk.answer(packet.body)
        self._tell_letters()
        self._channel.send("answer", {"ask": packet.number("ask"), "answer": answer})

    def _leave(self) -> None:
        """Write down what came last, and close the file."""
        self._work()
        if self._drain is not None and self._drain.body.get("discard"):
            dropped = len(self._store.cancel(None, time.time()))
            self._way.waiting.clear()
            if dropped:
                logs.info("durable tasks dropped", count=dropped)
        self._inbox.close()
        waiting = len(self._way.waiting)
        self._channel.send("closed", {"is_empty": self._store.close(), "waiting": waiting})
