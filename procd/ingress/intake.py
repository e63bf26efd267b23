"""From the public queue into the arena: one message after the other, in the order of sending.

A message is looked at, stored as a task, and only then taken off: a death at any moment loses
none. One that comes between storing and taking off has it stored twice, as other deaths have a
task run twice. What is no task is taken off, counted and kept as a sample, and holds up nobody.

Others may receive from that queue as well. What was taken off is compared with what was looked
at: where it is another message, that one is now in our hands alone, and is stored next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from procd import logs
from procd.errors import MessageTooBig
from procd.ingress.tmpfile import Content, TmpDir
from procd.ipc import wire
from procd.ipc.foreign.envelope import Reply
from procd.ipc.foreign.message import (
    LARGEST_TASK_TYPE,
    Reason,
    Refused,
    Request,
    Rules,
    understand,
)
from procd.ipc.tally import Count, Tally
from procd.linux import sysvraw
from procd.linux.sysv import MessageQueue, QueueEmpty

Message = tuple[bytes, int]  # data, type


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that is ready to be stored, and its file if it had one."""

    message: Message
    payload: bytes
    reply: Reply | None
    content: Content | None


class Intake:
    """*store*(payload, mtype, reply) accepts a task, or raises what Dispatcher.dispatch does."""

    def __init__(
        self,
        rules: Rules,
        tmpdir: TmpDir | None,
        store: Callable[[bytes, int, Reply | None], None],
        tally: Tally,
    ) -> None:
        self._rules = rules
        self._tmpdir = tmpdir
        self._store = store
        self._tally = tally
        self._in_hand: Message | None = None  # taken off, and not stored yet
        self._window: sysvraw.Window | None = None  # of the queue as it is now
        self._passed = 0  # answers that lie before the next message, as far as is known
        self._prepared: Prepared | None = None  # of a message for which there was no room

    @property
    def holds(self) -> bool:
        """Tell whether a message would be lost with this process."""
        return self._in_hand is not None

    def look_anew(self) -> None:
        """Believe nothing about the queue: time has passed, and others have had their way."""
        self._passed = 0

    def take(self, queue: MessageQueue) -> None:
        """Take one message; first look_anew(), then as often as you like.

        Raises QueueEmpty, QueueGone, QueueDenied; TaskQueueFull and TaskRejected where there is
        no room for it: nothing has happened to it then.
        """
        if self._in_hand is not None:
            self.take_from_hand()
            return
        try:
            message = self._first(queue)
        except MessageTooBig:
            # kernel.msgmax was lowered: it can be received, but not looked at.
            self._in_hand = sysvraw.receive(queue, -LARGEST_TASK_TYPE)
            self.take_from_hand()
            return
        self._handle(message)
        self._take_off(queue, message)

    def take_from_hand(self) -> None:
        """Store what is in hand alone; raises as take()."""
        if self._in_hand is not None:
            self._handle(self._in_hand)
            self._in_hand = None

    def took_empty(self, mtype: int) -> None:
        """The kernel has taken a message without any bytes off for us."""
        self._refuse((b"", mtype), Refused(Reason.EMPTY, "a message without any bytes"))

    def _first(self, queue: MessageQueue) -> Message:
        """Look at the oldest message that is not somebody's answer."""
        if self._window is None or self._window.queue is not queue:
            self._window = sysvraw.Window(queue)
            self._passed = 0
        # Hundreds that nobody reads may lie there: not past all of them for each message.
        while (message := self._window.look(self._passed))[1] > LARGEST_TASK_TYPE:
            self._passed += 1
        return message

    def _take_off(self, queue: MessageQueue, message: Message) -> None:
        if self._passed and queue.last_receiver != os.getpid():
            self._passed = 0  # somebody has read an answer: the next message has moved up
        try:
            # Of its type it is the first: all before it are answers.
            found = queue.receive(message[1])
        except QueueEmpty:
            self._tally.count(Count.RACED)
            return
        if found != message:
            self._tally.count(Count.RACED)
            self._in_hand = found

    def _handle(self, message: Message) -> None:
        """Store a message as a task, or refuse it; raises where there is no room."""
        prepared = self._prepared
        try:
            if prepared is None or prepared.message != message:
                prepared = self._prepare(message)
            self._accept(prepared)
        except Refused as refused:
            self._refuse(message, refused)
        self._prepared = None

    def _prepare(self, message: Message) -> Prepared:
        try:
            request = understand(message[0], self._rules)
            value, content = request.value, None
            if request.file is not None:
                content = self._read(request)
                value = request.decode(content.data)
            return Prepared(message, wire.pack(value), request.reply, content)
        except Refused:
            raise
        except TypeError as error:
            raise Refused(Reason.UNDECODABLE, str(error)) from None
        except Exception as error:  # noqa: BLE001 - the process's one broad handler
            # Whatever it is: the next one must not wait behind it for ever.
            logs.log.exception("fault in the ingress")
            raise Refused(Reason.FAULT, f"{type(error).__name__}: {error}") from None

    def _read(self, request: Request) -> Content:
        if self._tmpdir is None or request.file is None:
            raise Refused(Reason.NO_TMPDIR, "its data is in a file, and task_tmpdir is null")
        return self._tmpdir.read(request.file)

    def _accept(self, prepared: Prepared) -> None:
        # Kept if there is no room: a large file is read once.
        self._prepared = prepared
        try:
            self._store(prepared.payload, prepared.message[1], prepared.reply)
        except MessageTooBig as error:
            raise Refused(Reason.TOO_BIG, str(error)) from None
        if prepared.content is not None and self._tmpdir is not None:
            self._tmpdir.remove(prepared.content)
        self._tally.count(Count.TAKEN)

    def _refuse(self, message: Message, refused: Refused) -> None:
        data, mtype = message
        self._tally.refuse(mtype, data, refused.reason, str(refused), time.time())
