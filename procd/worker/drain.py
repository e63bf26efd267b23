"""How a worker leaves: what can move moves, the rest is served until it ends or time is up.

A reload, a recycling and a scale-down look the same here. A stop moves nothing, and closes
what is idle at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf

from procd import logs
from procd.ipc.channel import Packet
from procd.tasks.host import ProcessHost
from procd.worker.connection import Connection
from procd.worker.handover import close_fds
from procd.worker.mover import LOOK_SECONDS, Mover

LAST_SECONDS = 0.35  # past the deadline for handlers under way; the master kills at 0.5


class Drain:
    """The last part of a worker's life."""

    def __init__(
        self,
        host: ProcessHost,
        connections: set[Connection],
        make_mover: Callable[[], Awaitable[Mover]],
        is_empty: Callable[[], bool],
    ) -> None:
        self.mover: Mover | None = None  # from run() on
        self._host = host
        self._connections = connections
        self._make_mover = make_mover
        self._is_empty = is_empty
        self._deadline = inf
        self._closes_idle = False
        self._moves = False
        self._fds: list[int] = []  # pipes to heirs that came before the mover

    def order(self, packet: Packet) -> None:
        """Take the master's word: until when, and what becomes of connections."""
        self._deadline = float(str(packet.body.get("deadline", 0)))
        self._closes_idle = bool(packet.body.get("close_idle"))
        self._moves = bool(packet.body.get("move"))
        self._fds += packet.fds
        if self.mover is not None:
            self._tell(self.mover)
        self._host.changed.set()

    def _tell(self, mover: Mover) -> None:
        fds, self._fds = self._fds, []
        if self._moves:
            mover.begin(fds)
        else:
            mover.end()
            close_fds(fds)

    async def _begin(self) -> None:
        try:
            self.mover = await self._make_mover()
        except OSError as error:
            logs.error("connections do not move", why=error.strerror, cure="raise LimitNOFILE")
            close_fds(self._fds)
        else:
            self._tell(self.mover)

    async def run(self) -> None:
        """Return when nothing is left, or time is up and over."""
        if not self._is_empty():
            await self._begin()
        while not self._is_drained():
            now = time.monotonic()
            if now >= self._deadline + LAST_SECONDS:
                logs.warning("drain cut short", connections=len(self._connections))
                break
            if self.mover is not None:
                self.mover.look(now)
            if now >= self._deadline or self._closes_idle:
                self._close_idle()
                until = now + LOOK_SECONDS
            else:
                until = min(self._deadline, inf if self.mover is None else self.mover.next_look)
            await self._host.change(until - time.monotonic())
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # on_close of the aborted
        if self.mover is not None:
            self.mover.close()

    def _close_idle(self) -> None:
        for connection in [each for each in self._connections if each.is_idle]:
            if self.mover is None or not self.mover.is_about_to_move(connection):
                connection.close()

    def _is_drained(self) -> bool:
        return self._is_empty() and not (self._host.busy or self._host.waits_for_results)
