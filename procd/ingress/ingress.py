"""The ingress: the process that takes foreign programs' messages in as tasks.

It runs no app code and imports none, so no reload concerns it. One wait for everything: the
sentry (a message is there), the inbox (a result is there), the master's word, and its timers.
Without room for a task it leaves the messages where they are: the queue fills, and who sends
into it waits or is told. Nothing here blocks but that one wait.

Drained it takes no more, and leaves when the answers that are still asked for are sent.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from math import inf

from procd import logs
from procd.config.schema import Config
from procd.errors import TaskFailed, TaskQueueFull, TaskRejected
from procd.ingress.answers import Answers
from procd.ingress.intake import Intake
from procd.ingress.relay import Relay
from procd.ingress.sentry import Sentry
from procd.ingress.tmpfile import TmpDir
from procd.ipc.channel import Channel, Closed, Packet
from procd.ipc.foreign.envelope import Reply
from procd.ipc.foreign.message import Rules
from procd.ipc.tally import Tally
from procd.linux import process
from procd.linux.sysv import MessageQueue, QueueEmpty, QueueError
from procd.spawn import stacks
from procd.spawn.context import Origin
from procd.tasks.dispatcher import RETRY_SECONDS

BATCH = 64  # messages taken in one turn of the loop
ROOM_SECONDS = 0.02  # how soon it is tried again where no slot was free
DISK_SECONDS = 1.0  # likewise where no file could be written


class Ingress:
    """run() is the life of an ingress, forked by the master."""

    def __init__(
        self, origin: Origin, channel: Channel, tally: Tally, row: int, incarnation: int
    ) -> None:
        self._origin = origin
        self._channel = channel
        self._tally = tally
        self._row, self._incarnation = row, incarnation
        self._queue: MessageQueue | None = None
        self._timers: dict[Callable[[], None], float] = {}
        self._serves = False
        self._looks = False  # there may be a message, and room for it
        self._has_room = True
        self._complaint = ""  # the last one of a disk that is full
        self._deadline = inf  # of a drain

    def run(self, config: Config, group: int | None) -> int:
        """Serve until told to go; return the exit status. *group* is message_queue_group's id."""
        logs.name_process("ingress")
        process.set_name("procd: ingress")
        process.drop_privileges(config.user, config.group)
        process.die_with_parent()  # a change of uid has cleared it
        if os.getppid() != self._origin.master_pid:
            return 0
        stacks.answer(self._origin.ipc_dir)
        self._open(config, group)
        signal.signal(signal.SIGTERM, lambda *_: self._retire())
        self._tell("ready")
        try:
            self._serve()
        except Closed:
            return 1  # no master, no service
        self._relay.close()
        return 0

    def _open(self, config: Config, group: int | None) -> None:
        self._key = config.message_queue_key or 0
        relay = self._relay = Relay(
            *(self._origin, self._tally, self._row, self._incarnation),
            max_bytes=config.task_max_bytes,
            want_retry=lambda: self._later(self._retry, RETRY_SECONDS),
            on_gone=lambda: self._tell("queue is gone"),
        )
        relay.on_result = self._finished
        relay.dispatcher.timeout = config.task_timeout
        tmpdir = None
        if config.task_tmpdir is not None:
            tmpdir = TmpDir(
                *(config.task_tmpdir, config.task_max_bytes, group),
                is_shared=bool(config.message_queue_mode & 0o077),
            )
        strings = config.message_queue_strings
        rules = Rules(
            config.message_queue_codec,
            "bytes" if strings == "bytes" else "auto",
            config.message_queue_reply_type,
        )
        self._intake = Intake(rules, tmpdir, relay.store, self._tally)
        self._answers = Answers(self._tally, time.monotonic())
        self._sentry = Sentry()

    def _serve(self) -> None:
        readers = {
            self._channel.fileno(): self._read_channel,
            self._relay.inbox.fileno(): self._relay.read_inbox,
            self._sentry.fileno(): self._read_sentry,
        }
        poll = select.poll()
        for fd in readers:
            poll.register(fd, select.POLLIN)
        # Somebody may have set MISSED before there was an inbox to be woken by.
        self._relay.read_inbox()
        while not self._may_leave():
            for fd, _ in poll.poll(self._wait_ms()):
                readers[fd]()
            self._run_timers()
            if self._looks:
                self._take()

    # Clocks

    def _later(self, call: Callable[[], None], seconds: float) -> None:
        self._timers[call] = time.monotonic() + seconds

    def _wait_ms(self) -> float | None:
        if self._looks:
            return 0
        due = min(*self._timers.values(), self._answers.due, self._deadline)
        return max(0.0, due - time.monotonic()) * 1000

    def _run_timers(self) -> None:
        now = time.monotonic()
        for call in [call for call, at in self._timers.items() if at <= now]:
            del self._timers[call]
            call()
        if now >= self._answers.due:
            self._answers.put_off(now)  # should there be no queue
            self._use(lambda queue: self._answers.look(queue, now))

    def _retry(self) -> None:
        self._relay.dispatcher.retry()

    # The master's word

    def _tell(self, kind: str, **body: object) -> None:
        self._channel.send(kind, body)

    def _read_channel(self) -> None:
        packet = self._channel.receive()
        if packet is not None:
            self._obey(packet)

    def _obey(self, packet: Packet) -> None:
        match packet.kind:
            case "serve":
                self._serves = True
                self._tell("serving")
                self._turn_to(packet.number("id"))
            case "queue":
                self._turn_to(packet.number("id"))
            case "drain":
                self._serves = False
                self._looks = self._intake.holds
                self._deadline = float(str(packet.body.get("deadline", 0)))
            case "log":
                logs.ordered(packet.body.get("level"), packet.fds)

    def _retire(self) -> None:
        """Take no more at once and ask for a successor: SIGTERM to this one process.

        Two that take would be in each other's way.
        """
        self._serves = False
        self._tell("retire", why="SIGTERM")

    def _turn_to(self, number: int) -> None:
        """Take from the queue of this id, which the master has found good; -1 = there is none."""
        self._queue = None
        self._answers.forget()
        if number < 0:
            return
        try:
            queue = MessageQueue.open(self._key)
        except QueueError:
            queue = None
        if queue is None or queue.id != number:
            self._is_gone(number)
            return
        self._queue = queue
        self._look_again()
        self._use(lambda found: self._answers.send(found, time.monotonic()))

    def _is_gone(self, number: int) -> None:
        self._queue = None
        self._looks = False
        self._tell("public queue is gone", id=number)

    def _use(self, call: Callable[[MessageQueue], None]) -> None:
        """Do something with the queue, if it is there."""
        queue = self._queue
        if queue is None:
            return
        try:
            call(queue)
        except QueueError as error:
            logs.warning("public queue lost", why=error)
            self._is_gone(queue.id)

    def _may_leave(self) -> bool:
        if self._deadline == inf:
            return False
        is_owed = self._relay.owes_answers or self._answers.waiting or self._intake.holds
        return not is_owed or time.monotonic() >= self._deadline

    # Messages

    def _look_again(self) -> None:
        self._looks = self._intake.holds or (self._serves and self._queue is not None)

    def _read_sentry(self) -> None:
        taken = self._sentry.report()
        if isinstance(taken, int):
            self._intake.took_empty(taken)
        self._look_again()  # which also finds out if the queue is gone

    def _take(self) -> None:
        self._looks = False
        try:
            if self._queue is None or not self._serves:
                self._intake.take_from_hand()
            else:
                self._use(self._take_some)
        except TaskQueueFull:
            self._wait_for_room(ROOM_SECONDS)
        except TaskRejected as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logs.error("no room for a message's data: it waits", why=error)
            self._wait_for_room(DISK_SECONDS)

    def _take_some(self, queue: MessageQueue) -> None:
        self._intake.look_anew()
        try:
            for _ in range(BATCH):
                if not self._serves:
                    return
                self._intake.take(queue)
        except QueueEmpty:
            self._sentry.arm(queue)
            return
        self._looks = True

    def _wait_for_room(self, seconds: float) -> None:
        """Room may also come from another process's slots, which tells nobody."""
        self._has_room = False
        self._later(self._room_again, seconds)

    def _room_again(self) -> None:
        self._has_room = True
        self._look_again()

    def _finished(self, reply: Reply | None, value: object, error: TaskFailed | None) -> None:
        if not self._has_room:
            self._room_again()
        if reply is None:
            return
        failure = None if error is None else str(error)
        self._answers.add(reply, value, failure)
        if not self._answers.is_stuck:
            self._use(lambda queue: self._answers.send(queue, time.monotonic()))
