"""What processes share, made for a test: arena, scoreboard, queue, inboxes; and a Recovery."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from procd.errors import InboxFull, TaskFailed
from procd.ipc import hints, inbox, layout, wire, words
from procd.ipc.arena import Arena
from procd.ipc.arenafile import ArenaFile
from procd.ipc.arenareader import Slot
from procd.ipc.inbox import Datagram, Inbox, Post
from procd.ipc.layout import Layout
from procd.ipc.scoreboard import Cell, Role, Scoreboard, Seat, Standing
from procd.ipc.words import SlotState
from procd.ledger.record import Ending, Entry
from procd.ledger.slots import LedgerArena
from procd.linux.sysv import MessageQueue, QueueEmpty, QueueFull
from procd.master.lease import Lease
from procd.master.recovery import Recovery
from procd.master.tokenqueue import TokenQueue
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.ref import TaskRef
from procd.tasks.shared import Shared
from procd.tasks.tokens import Tokens

SLOTS, SLOT_BYTES, ATTEMPTS, EPOCH = 64, 256, 3, 1000
MAX_BYTES = 1_000_000
JUNK = 2**63 - 1  # a token that names no slot


@contextmanager
def posting(folder: Path) -> Iterator[Post]:
    post = Post(folder)
    try:
        yield post
    finally:
        post._hints.close()
        post._messages.close()


@dataclass(frozen=True, slots=True)
class Someone:
    """One process of the service, whose code runs in the test."""

    seat: Seat
    shared: Shared
    inbox: Inbox
    cells: memoryview
    dispatcher: Dispatcher
    results: list[tuple[int, object, TaskFailed | None]]  # id, value, error

    @property
    def arena(self) -> Arena:
        return self.shared.arena

    def mail(self) -> list[Datagram]:
        """Everything in its inbox."""
        found = []
        while (datagram := self.inbox.receive()) is not None:
            found.append(inbox.parse(datagram))
        return found


class Service:
    """All of it but the processes. Adopts the arena that is in *folder*, or makes one."""

    def __init__(self, folder: Path, stack: ExitStack, slots: int) -> None:
        self.folder, self.path = folder, folder / "arena"
        self.ipc = folder / "ipc"
        self.ipc.mkdir(exist_ok=True)
        found = ArenaFile.adopt(self.path)
        self.file = found or ArenaFile.create(self.path, Layout.of(slots, SLOT_BYTES, EPOCH))
        self.file.spool.max_bytes = MAX_BYTES
        self.scoreboard = Scoreboard(32)
        self.scoreboard.set_counts(2, 2)
        self.post = stack.enter_context(posting(self.ipc))
        self.lease = Lease(folder / "lease")
        self.lease.acquire()
        self.tokens = TokenQueue(self.lease)
        self.recovery = Recovery(self.file, self.tokens, self.scoreboard, self.post, ATTEMPTS)
        self.doorbell = self.recovery.doorbell
        self.ledger = self.recovery.ledger
        self._stack, self._rows, self._is_open = stack, 0, True
        stack.callback(self._give_back)

    def _give_back(self) -> None:
        os.close(self.doorbell.fd)
        os.close(self.ledger.fd)
        if self._is_open:
            self.file.close()
        if self.lease.fd >= 0:
            self.tokens.remove()
            self.lease.release()

    @property
    def queue(self) -> MessageQueue:
        return self.tokens.queue

    def die(self) -> None:
        """End as a master does that is killed: the kernel gives its lease free."""
        os.close(self.lease.fd)
        self.lease.fd = -1

    def stop(self, *, discard: bool = False) -> int:
        """End as a master does; how many tasks are kept."""
        self._is_open = False
        kept = self.recovery.close(self.folder / "ids", discard=discard)
        self.lease.release()
        return kept

    def someone(
        self, role: Role, number: int = 0, *, standing: Standing = Standing.SERVING
    ) -> Someone:
        """Seat a process of generation 1."""
        self._rows += 1
        row, incarnation = self._rows, 100 + self._rows
        seat = Seat(row, incarnation, os.getpid(), 1, role, number, standing)
        self.scoreboard.seat(seat)
        arena = Arena(self.file.fd, self.file.layout, self.file.spool)
        arena.become(row, incarnation)
        own = Inbox(self.ipc, row, incarnation)
        self._stack.callback(own.close)
        tokens = Tokens(self.tokens.key)
        shared = Shared(arena, tokens, self.doorbell, self.post, self.scoreboard, self.ledger)
        results: list[tuple[int, object, TaskFailed | None]] = []

        def on_result(ref: TaskRef, value: object, error: TaskFailed | None) -> None:
            results.append((ref.id, value, error))

        cells = self.scoreboard.row(row)
        dispatcher = Dispatcher(shared, Me(role, number, 1, row), cells, on_result, lambda: None)
        return Someone(seat, shared, own, cells, dispatcher, results)

    def bury(self, who: Someone, how: str = "SIGKILL", *, blame: bool = True) -> None:
        """Do what the master does when it has reaped a process."""
        self.scoreboard.clear(who.seat.row)
        who.inbox.close()
        self.recovery.reaped(who.seat, how, 0.0, blame=blame)

    def lay_down(self) -> list[tuple[Entry, Ending]]:
        """Do what the ledger does with dead letters, once it has them on its disk."""
        arena = LedgerArena(self.file.fd, self.file.layout, self.file.spool)
        found = [(token, arena.letter(token)) for token in arena.look().dead]
        for token, _ in found:
            arena.bury(token)
            hints.tell(self.post, self.scoreboard, *arena.dispatcher(token), token)
        return [letter for _, letter in found]

    def slot(self, token: int) -> Slot:
        return self.file.slot(words.slot_of(token))

    def state(self, token: int) -> SlotState:
        return self.slot(token).state

    def queued(self) -> list[int]:
        """Take all tokens out of the queue."""
        found = []
        while True:
            try:
                found.append(layout.WORD.unpack(self.queue.receive(-9)[0])[0])
            except QueueEmpty:
                return found

    def rings(self) -> int:
        """Answer all rings."""
        count = 0
        while self.doorbell.answer():
            count += 1
        return count

    def fill_queue(self) -> int:
        """Fill the queue with tokens that name nothing."""
        count = 0
        while True:
            try:
                self.queue.send(layout.WORD.pack(JUNK), 9)
            except QueueFull:
                return count
            count += 1

    def fill_inbox(self, who: Someone) -> int:
        """Fill an inbox from elsewhere."""
        count = 0
        with posting(self.ipc) as post:
            while True:
                try:
                    post.send(who.seat.row, who.seat.incarnation, inbox.hint(JUNK))
                except InboxFull:
                    return count
                count += 1


@dataclass(slots=True)
class Me:
    """Who a dispatcher is."""

    role: Role
    number: int
    generation: int
    row: int


@contextmanager
def serving(folder: Path, slots: int = SLOTS) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(folder, stack, slots)


def accepted(service: Service, worker: Someone, *, seat: int = -1) -> int:
    """A task in the arena, its token out of the queue: somebody has it in hand."""
    token = worker.dispatcher.dispatch(wire.pack("work"), seat=seat).id
    service.queued()
    service.rings()
    return token


def claim(tasker: Someone, token: int) -> None:
    tasker.cells[Cell.CURRENT] = token
    assert tasker.arena.claim(token) is not None


def finish(tasker: Someone, token: int) -> None:
    """Run a task, and die before its dispatcher is told."""
    claim(tasker, token)
    tasker.arena.finish(token, wire.pack("result"), failed=False)
