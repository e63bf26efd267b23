"""A worker: serves connections on its event loop until it is told to drain.

It boots (on_worker_start), says ready, and accepts nothing before the master's word.
Drained it stops accepting, hands on what can move (drain.py), serves the rest, finishes
what it awaits, and leaves; at its deadline it closes connections between two messages.
"""

from __future__ import annotations

import asyncio
import socket

from procd import logs
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Cell
from procd.spawn.context import Context
from procd.tasks.host import ProcessHost
from procd.tasks.jitter import with_jitter
from procd.tasks.safeguards import retire_on_sigterm
from procd.worker.acceptor import Acceptor
from procd.worker.connection import Connection, unique_id
from procd.worker.drain import Drain
from procd.worker.handover import Heir, close_fds
from procd.worker.movable import holds_of_nobody
from procd.worker.mover import Mover


class Worker:
    """One worker process; run() is its life."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.config
        self.host = ProcessHost(context, on_addressed=self._not_for_me)
        self.connections: set[Connection] = set()
        self._serves = False
        self._opening = 0
        self._opened = 0
        self._cells = self.host.cells
        self._acceptor = Acceptor(context.listener_fds, self._take, self._has_room)
        self._retires_at = with_jitter(self.config.max_request)
        self._drains = asyncio.Event()
        self._heir = Heir(self._adopt)
        self._drain = Drain(
            *(self.host, self.connections, self._mover),
            is_empty=lambda: not (self.connections or self._opening),
        )

    async def run(self) -> int:
        """Return the exit status."""
        await self.host.start()
        channel = self.context.channel
        retire_on_sigterm(channel)
        self.host.listen_to_master(self._obey)
        channel.send("ready")
        await self._drains.wait()
        await self._drain.run()
        await self.host.stop()
        return 0

    async def _mover(self) -> Mover:
        """Return who moves the connections; raises OSError. Made when one is needed: at the end."""
        return Mover(self.host, self.connections, await holds_of_nobody(self), self.forget)

    # The master's word

    def _obey(self, packet: Packet) -> None:
        if packet.kind == "serve":
            self._serves = True
            self._accept_again()
            self.context.channel.send("serving")
        elif packet.kind == "drain":
            leaving = packet.body.get("leaving")
            self._acceptor.close(leaving if isinstance(leaving, list) else [])
            self._heir.close()  # what is not taken yet goes to one that stays
            self.context.channel.send("shut")
            self._drain.order(packet)
            self._drains.set()
        elif packet.kind == "rest":  # of listeners that the old workers did not empty
            for fd in packet.fds:
                with socket.socket(fileno=fd) as listener:
                    self._acceptor.empty(listener)
        elif packet.kind == "adopt" and not self._drains.is_set():
            for fd in packet.fds:
                self._heir.open(fd)
        elif packet.kind == "heir" and self._drain.mover is not None:
            self._drain.mover.meet(packet.fds)
        elif packet.kind == "log":
            logs.ordered(packet.body.get("level"), packet.fds)
        else:
            close_fds(packet.fds)

    # Connections

    def _has_room(self) -> bool:
        return len(self.connections) + self._opening < self.config.max_conn

    def _take(self, client: socket.socket) -> None:
        self._opened += 1
        number = unique_id(self.context.incarnation, self._opened)
        self._begin(Connection(self, number, self.config.send_buffer_bytes), client)

    def _adopt(self, number: int, state: object, unread: bytes, client: socket.socket) -> None:
        """Serve a connection that another worker has had; max_conn does not refuse it."""
        connection = Connection(self, number, self.config.send_buffer_bytes)
        connection.inherit(state, unread)
        self._begin(connection, client)

    def _begin(self, connection: Connection, client: socket.socket) -> None:
        self._opening += 1
        self.host.run("accept", self._open(connection, client))

    async def _open(self, connection: Connection, client: socket.socket) -> None:
        try:
            loop = asyncio.get_running_loop()
            self.connections.add(connection)
            self._cells[Cell.CONNECTIONS] = len(self.connections)
            await loop.connect_accepted_socket(lambda: connection, client)
        except OSError:  # it went again before we could look at it
            client.close()
            self.forget(connection)
        finally:
            self._opening -= 1
            self._accept_again()  # it may be gone by now, and was counted until here

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self._cells[Cell.CONNECTIONS] = len(self.connections)
        self.host.changed.set()
        self._accept_again()

    def would_move(self, connection: Connection) -> bool:
        """Tell whether a connection is about to go on in another worker."""
        mover = self._drain.mover
        return mover is not None and mover.wants(connection)

    def _accept_again(self) -> None:
        if self._serves and not self._drains.is_set() and self._has_room():
            self._acceptor.start()

    def count_request(self) -> None:
        """A message came in; ask to be replaced when they are enough."""
        self._cells[Cell.REQUESTS] += 1
        if self._cells[Cell.REQUESTS] == self._retires_at:
            self.context.channel.send("retire", {"why": "max_request"})
        self.host.look_at_memory()

    def _not_for_me(self, token: int) -> None:
        self._cells[Cell.BAD_MESSAGES] += 1
