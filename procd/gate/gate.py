"""The gate: the process through which programs outside of the service send tasks.

Such a program must never hold the arena, its lease or its locks; so it talks to this process,
which dispatches as a worker does, and runs no app code, so that no reload concerns it. The master
makes the socket, starts a gate when somebody knocks, and takes the socket back from one that nobody
has used for a while: who knocks meanwhile waits in the socket, and is never turned away.

One wait for everything; nothing here blocks but that. Drained it takes no more, and leaves when
every program has what it waits for.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from math import inf

from procd import logs
from procd.config.schema import Config
from procd.gate.desk import Desk
from procd.gate.session import Session, turn_away
from procd.ipc.channel import Channel, Closed, Packet
from procd.ipc.scoreboard import Role
from procd.linux import process
from procd.spawn import stacks
from procd.spawn.context import Origin
from procd.tasks.dispatcher import RETRY_SECONDS
from procd.tasks.outside import Identity, Outside

UNUSED_SECONDS = 60.0
ACCEPT_SECONDS = 1.0  # until it is tried again where no descriptor was left
BATCH = 16  # programs let in at once
_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class Gate:
    """run() is the life of a gate, forked by the master with the *listener* that it has made."""

    def __init__(
        self,
        origin: Origin,
        channel: Channel,
        listener: socket.socket,
        row: int,
        incarnation: int,
        unused_seconds: float = UNUSED_SECONDS,
    ) -> None:
        self._origin = origin
        self._channel = channel
        self._listener = listener
        self._row, self._incarnation = row, incarnation
        self._unused_seconds = unused_seconds
        self._retry_at = self._accept_at = self._unused_at = self._call_at = inf
        self._call: Callable[[], None] = lambda: None
        self._deadline = inf  # of a drain
        self._readers: dict[int, Callable[[], None]] = {}
        self._sessions: dict[int, Session] = {}  # by descriptor

    def run(self, config: Config) -> int:
        """Serve until told to go; return the exit status."""
        logs.name_process("gate")
        process.set_name("procd: gate")
        self._uids = {0, os.geteuid()}
        process.drop_privileges(config.user, config.group)
        process.die_with_parent()  # a change of uid has cleared it
        if os.getppid() != self._origin.master_pid:
            return 0
        self._uids.add(os.geteuid())
        stacks.answer(self._origin.ipc_dir)
        process.give_large_memory_back()
        self._open(config)
        self._tell("ready")
        try:
            self._serve()
        except Closed:
            return 1  # no master, no service
        self._outside.inbox.close()
        return 0

    def _open(self, config: Config) -> None:
        outside = self._outside = Outside(
            *(self._origin, Identity(self._row, Role.GATE), self._incarnation),
            on_gone=lambda: self._tell("queue is gone"),
        )
        self._desk = Desk(
            outside,
            config.task_max_bytes,
            want_retry=self._want_retry,
            tell_master=self._channel.send,
            later=self._call_later,
            watch=self._watch,
            forget=self._forget,
        )
        self._desk.limit(config.task_max_bytes, config.task_timeout)
        self._poll = select.epoll()
        self._listen_to(self._channel.fileno(), self._read_channel)
        results = self._desk.results
        self._listen_to(outside.inbox.fileno(), lambda: outside.read_inbox(results))
        outside.read_inbox(results)  # as in ingress.ingress

    def _listen_to(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._poll.register(fd, select.EPOLLIN)

    # The loop

    def _serve(self) -> None:
        while not self._may_leave():
            found = self._poll.poll(self._wait_seconds())
            # Sessions first: one that is let in now may have the descriptor of one that goes.
            for fd, events in sorted(found, key=lambda each: each[0] in self._readers):
                if fd in self._readers:
                    self._readers[fd]()
                elif fd in self._sessions:
                    self._desk.serve(self._sessions[fd], events)
            self._run_timers(time.monotonic())

    def _watch(self, session: Session) -> None:
        fd, wanted = session.fileno(), self._desk.wanted(session)
        if fd in self._sessions:
            self._poll.modify(fd, wanted)
        else:
            self._sessions[fd] = session
            self._poll.register(fd, wanted)
        self._unused_at = inf

    def _forget(self, session: Session) -> None:
        if self._sessions.pop(session.fileno(), None) is not None:
            self._poll.unregister(session.fileno())
        if not self._sessions:
            self._unused_at = time.monotonic() + self._unused_seconds

    # Clocks

    def _want_retry(self) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self._call_at, self._call = time.monotonic() + seconds, call

    def _wait_seconds(self) -> float | None:
        due = min(
            *(self._retry_at, self._accept_at, self._unused_at, self._deadline, self._desk.due()),
            self._call_at,
        )
        return None if due == inf else max(0.0, due - time.monotonic())

    def _run_timers(self, now: float) -> None:
        if now >= self._retry_at:
            self._retry_at = inf
            self._desk.results.retry()
        if now >= self._call_at:
            self._call_at = inf
            self._call()
        if now >= self._accept_at:
            self._accept_at = inf
            self._let_in()
        if now >= self._unused_at:
            self._unused_at = inf
            self._shut()
            self._tell("unused")
        if now >= self._desk.due():
            self._desk.tick(now)

    # The master's word

    def _tell(self, kind: str) -> None:
        self._channel.send(kind)

    def _read_channel(self) -> None:
        packet = self._channel.receive()
        if packet is not None:
            self._obey(packet)

    def _obey(self, packet: Packet) -> None:
        match packet.kind:
            case "serve":
                self._let_in()
                self._unused_at = time.monotonic() + self._unused_seconds
                self._tell("serving")
            case "limit":
                timeout = packet.body.get("task_timeout")
                seconds = float(timeout) if isinstance(timeout, int | float) else None
                self._desk.limit(packet.number("task_max_bytes"), seconds)
            case "drain":
                self._shut()
                self._desk.is_closed = True
                self._deadline = float(str(packet.body.get("deadline", 0)))
            case "log":
                logs.ordered(packet.body.get("level"), packet.fds)

    def _may_leave(self) -> bool:
        if self._deadline == inf:
            return False
        if self._desk.owes and time.monotonic() < self._deadline:
            return False
        self._desk.give_up()
        return True

    # Programs that knock

    def _let_in(self) -> None:
        self._listen_to(self._listener.fileno(), self._accept)

    def _shut(self) -> None:
        """Take nobody in any more: who knocks is the master's."""
        if self._readers.pop(self._listener.fileno(), None) is not None:
            self._poll.unregister(self._listener.fileno())

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                logs.error("gate: nobody let in", why=error.strerror, cure="raise LimitNOFILE")
                self._shut()
                self._accept_at = time.monotonic() + ACCEPT_SECONDS
                return
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            uid = _CREDENTIALS.unpack(found)[1]
            if uid in self._uids:
                self._desk.welcome(sock)
            else:
                logs.warning("gate refused", uid=uid)
                turn_away(sock, f"this service is not for uid {uid}: be root or its own user")
