"""The master's side of the gate: its socket, and when there should be a gate to serve it.

The socket is the master's own and stays over every gate. While there is no gate the master waits
for somebody to knock, and does not open: that is for the gate that it starts then.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

from procd import logs
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.ipc import frames
from procd.ipc.channel import Channel, Packet
from procd.ipc.scoreboard import Role
from procd.master.loop import Loop
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.states import GOING, UP, Event, Row, Seat, State
from procd.spawn.context import Origin

SEAT = Seat(Role.GATE, 0, 0)
BACKLOG = 128


class Gates:
    """Makes the socket; raises StartFailed."""

    def __init__(
        self,
        config: Config,
        origin: Origin,
        processes: Processes,
        loop: Loop,
        owner: tuple[int, int] | None,
    ) -> None:
        """*owner* is whose the socket should be, if not the master's."""
        self._config = config
        self._origin = origin
        self._processes = processes
        self._loop = loop
        self._path = origin.ipc_dir / frames.SOCKET
        self._is_wanted = self._is_closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            old = os.umask(0o177)
            try:
                self._socket.bind(str(self._path))
            finally:
                os.umask(old)
            if owner is not None:
                os.chown(self._path, *owner)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            why = error.strerror or error
            raise StartFailed(f"cannot make the socket {self._path}: {why}") from None
        self._socket.setblocking(False)
        loop.read(self._socket, self._knocked)

    @property
    def wanted(self) -> Seat | None:
        """The seat that there should be."""
        return SEAT if self._is_wanted and not self._is_closed else None

    def _knocked(self) -> None:
        if not self._is_wanted:
            self._is_wanted = True
            self._loop.forget(self._socket)

    def fork(self, row: Row, channel: Channel) -> bool:
        """Fork a gate for a row."""
        origin, config, listener = self._origin, self._config, self._socket

        def body() -> int:
            # Here and not at the top: the master has no use for what the gate imports.
            from procd.gate.gate import Gate

            return Gate(origin, channel, listener, row.row, row.incarnation).run(config)

        return self._processes.fork_own(body, row, channel, {listener.fileno()})

    def follow(self, config: Config) -> None:
        """A config is in effect: a gate goes on with its limits."""
        limits = _limits(config)
        is_new = limits != _limits(self._config)
        self._config = config
        for process in self._processes.table.values():
            # One that boots finds the order waiting.
            if is_new and process.row.seat == SEAT and process.row.state not in GOING:
                self._processes.send(process, "limit", limits)

    def heard(self, process: Process, packet: Packet) -> None:
        """Take in one packet of a gate."""
        processes, state = self._processes, process.row.state
        match packet.kind:
            case "ready" if state is State.BOOTING:
                processes.step(process, Event.BECAME_READY)
            case "serving" if state in (State.CALLED, *GOING):
                processes.step(process, Event.SERVES)
                boot = time.monotonic() - process.row.since
                logs.info("ready", role="gate", pid=process.row.pid, boot=boot)
            case "unused" if state in UP and self._is_wanted and not self._is_closed:
                self._is_wanted = False
                self._loop.read(self._socket, self._knocked)

    def close(self) -> None:
        """The service ends: nobody new is heard."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_wanted:
            self._loop.forget(self._socket)
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._path)


def _limits(config: Config) -> dict[str, object]:
    """Return what a gate is told of a config."""
    return {"task_max_bytes": config.task_max_bytes, "task_timeout": config.task_timeout}
