"""The master's side of the ingress: which one there should be, and its queue."""

from __future__ import annotations

import time
from math import inf

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Channel, Packet
from procd.ipc.scoreboard import Role
from procd.ipc.tally import Count, Tally
from procd.linux.sysv import label
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.publicqueue import PublicQueue
from procd.master.recovery import Recovery
from procd.master.states import GOING, UP, Event, Row, Seat, State, ingress_seat
from procd.master.stopping import Stopping
from procd.spawn.context import Origin

MOST_SEATS = 65536  # numbers of a seat
# What an ingress builds on: another value takes another ingress.
_KEYS = (
    *("message_queue_strings", "message_queue_codec", "message_queue_reply_type"),
    *("task_tmpdir", "task_max_bytes", "task_timeout"),
)

Json = dict[str, object]


class Ingresses:
    """*queue* is None where no foreign programs are to be heard."""

    def __init__(
        self,
        config: Config,
        origin: Origin,
        processes: Processes,
        recovery: Recovery,
        stopping: Stopping,
        queue: PublicQueue | None,
    ) -> None:
        self._config = config
        self._origin = origin
        self._processes = processes
        self._recovery = recovery
        self._stopping = stopping
        self._queue = queue
        self._tally = Tally()
        self.number = 0

    @property
    def wanted(self) -> Seat | None:
        """The seat that there should be."""
        return None if self._queue is None else ingress_seat(self.number)

    def follow(self, config: Config) -> None:
        """A config is in effect: have the ingress replaced if it is another one's."""
        if any(getattr(config, key) != getattr(self._config, key) for key in _KEYS):
            self.number = (self.number + 1) % MOST_SEATS
        self._config = config

    def fork(self, row: Row, channel: Channel) -> bool:
        """Fork an ingress for a row."""
        origin, config, tally = self._origin, self._config, self._tally
        group = None if self._queue is None else self._queue.group

        def body() -> int:
            # Here and not at the top: the master has no use for what the ingress imports.
            from procd.ingress.ingress import Ingress

            return Ingress(origin, channel, tally, row.row, row.incarnation).run(config, group)

        return self._processes.fork_own(body, row, channel)

    def where(self) -> Json:
        """Return the order that names the queue."""
        return {"id": -1 if self._queue is None else self._queue.id}

    def heard(self, process: Process, packet: Packet) -> None:
        """Take in one packet of an ingress."""
        processes, state = self._processes, process.row.state
        match packet.kind:
            case "ready" if state is State.BOOTING:
                processes.step(process, Event.BECAME_READY)
            case "serving" if state in (State.CALLED, *GOING):
                processes.step(process, Event.SERVES)
                boot = time.monotonic() - process.row.since
                logs.info("ready", role="ingress", pid=process.row.pid, boot=boot)
            case "retire" if state is State.SERVING:
                processes.retire(process)
            case "queue is gone":
                self._recovery.queue_is_missed(time.monotonic())
            case "public queue is gone":
                self._look(time.monotonic())

    # The queue

    def due(self) -> float:
        return inf if self._queue is None else self._queue.next_try

    def tick(self, now: float) -> None:
        if now >= self.due():
            self._look(now)

    def _look(self, now: float) -> None:
        if self._queue is None or self._stopping.is_asked:
            return
        self._queue.look(now)
        for process in self._processes.table.values():
            if process.row.seat.role is Role.INGRESS and process.row.state in UP:
                self._processes.send(process, "queue", self.where())

    def close(self, *, keep: bool) -> int:
        """The service ends: return how many messages stay in the queue."""
        return 0 if self._queue is None else self._queue.close(keep=keep)

    # What is told of it

    def page(self) -> Json | None:
        """Return what `status` tells."""
        queue, get = self._queue, self._tally.get
        if queue is None:
            return None
        return {
            "queue": label(queue.key),
            "error": queue.error,
            "taken": get(Count.TAKEN),
            "unaddressed": get(Count.UNADDRESSED),
            "rejected": self._tally.refused(),
            "answers": get(Count.ANSWERS),
            "answers_expired": get(Count.EXPIRED),
            "answers_dropped": get(Count.DROPPED),
            "raced": get(Count.RACED),
        }

    def samples(self) -> list[Json]:
        """Return the last messages that were refused."""
        return [{**sample._asdict(), "head": sample.head.hex()} for sample in self._tally.samples()]
