"""A worker: serves connections on its event loop until it is told to drain.

It boots (on_worker_start), says ready, and accepts nothing before the master's word.
Drained it stops accepting, serves what it has accepted, finishes what it awaits, and
leaves; at its deadline it closes connections between two messages.
"""

from __future__ import annotations

import asyncio
import socket
import time
from math import inf

from procd import logs
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Cell
from procd.spawn.context import Context
from procd.tasks.host import ProcessHost, with_jitter
from procd.tasks.safeguards import retire_on_sigterm
from procd.worker.acceptor import Acceptor
from procd.worker.connection import Connection, unique_id

LAST_SECONDS = 0.35  # past the deadline for handlers under way; the master kills at 0.5
LOOK_SECONDS = 0.05  # how often a stop looks for connections that have become idle


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
        self._deadline = inf
        self._closes_idle = False
        self._drains = asyncio.Event()

    async def run(self) -> int:
        """Return the exit status."""
        await self.host.start()
        channel = self.context.channel
        retire_on_sigterm(channel)
        self.host.listen_to_master(self._obey)
        channel.send("ready")
        await self._drains.wait()
        await self._drain()
        await self.host.stop()
        return 0

    # The master's word

    def _obey(self, packet: Packet) -> None:
        if packet.kind == "serve":
            self._serves = True
            self._accept_again()
            self.context.channel.send("serving")
        elif packet.kind == "drain":
            self._deadline = float(str(packet.body.get("deadline", 0)))
            self._closes_idle = bool(packet.body.get("close_idle"))
            leaving = packet.body.get("leaving")
            self._acceptor.close(leaving if isinstance(leaving, list) else [])
            self.context.channel.send("shut")
            self._drains.set()
            self.host.changed.set()
        elif packet.kind == "rest":  # of listeners that the old workers did not empty
            for fd in packet.fds:
                with socket.socket(fileno=fd) as listener:
                    self._acceptor.empty(listener)
        elif packet.kind == "log":
            logs.ordered(packet.body.get("level"), packet.fds)

    # Connections

    def _has_room(self) -> bool:
        return len(self.connections) + self._opening < self.config.max_conn

    def _take(self, client: socket.socket) -> None:
        self._opened += 1
        self._opening += 1
        number = unique_id(self.context.incarnation, self._opened)
        connection = Connection(self, number, self.config.send_buffer_bytes)
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

    def _accept_again(self) -> None:
        if self._serves and not self._drains.is_set() and self._has_room():
            self._acceptor.start()

    def count_request(self) -> None:
        """A message came in; ask to be replaced when they are enough."""
        self._cells[Cell.REQUESTS] += 1
        if self._cells[Cell.REQUESTS] == self._retires_at:
            self.context.channel.send("retire", {"why": "max_request"})

    def _not_for_me(self, token: int) -> None:
        self._cells[Cell.BAD_MESSAGES] += 1

    # Draining

    async def _drain(self) -> None:
        while not self._is_drained():
            now = time.monotonic()
            if now >= self._deadline + LAST_SECONDS:
                logs.warning("drain cut short", connections=len(self.connections))
                break
            late = now >= self._deadline
            if late or self._closes_idle:
                for connection in [each for each in self.connections if each.is_idle]:
                    connection.close()
                until = now + LOOK_SECONDS
            else:
                until = self._deadline
            await self._change_or(until - now)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # on_close of the aborted

    def _is_drained(self) -> bool:
        host = self.host
        return not (self.connections or self._opening or host.busy or host.waits_for_results)

    async def _change_or(self, seconds: float) -> None:
        self.host.changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.host.changed.wait()
        except TimeoutError:
            pass
