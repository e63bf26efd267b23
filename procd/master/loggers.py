"""The master's side of the logger: the first of its processes, and the last to go."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Channel, Packet
from procd.ipc.scoreboard import Role
from procd.master.outputs import Outputs
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.states import GOING, UP, Event, Row, Seat, State
from procd.spawn.context import Origin

SEAT = Seat(Role.LOGGER, 0, 0)
LAST_SECONDS = 3.0  # for the logger to write what there is, at the end

Json = dict[str, object]


class Loggers:
    """Has one logger run."""

    def __init__(
        self, config: Config, origin: Origin, processes: Processes, outputs: Outputs
    ) -> None:
        self._config = config
        self._origin = origin
        self._processes = processes
        self._outputs = outputs
        self._counts: Json = {"held_back": 0, "lost": 0, "error": None}
        self._before = {"held_back": 0, "lost": 0}  # by loggers that are gone

    def fork(self, row: Row, channel: Channel) -> bool:
        """Fork a logger for a row."""
        origin, config = self._origin, self._config

        def body() -> int:
            # Here and not at the top: the master has no use for what the logger imports.
            from procd.logger.logger import Logger

            return Logger(origin, channel).run(config)

        return self._processes.fork_own(body, row, channel)

    def follow(self, config: Config) -> None:
        """A config is in effect."""
        is_new = config.log_rate != self._config.log_rate
        self._config = config
        if is_new and (process := self._there()) is not None:
            self._processes.send(process, "rate", {"rate": config.log_rate})

    def heard(self, process: Process, packet: Packet) -> None:
        """Take in one packet of the logger."""
        processes, state = self._processes, process.row.state
        match packet.kind:
            case "ready" if state is State.BOOTING:
                processes.step(process, Event.BECAME_READY)
            case "serving" if state in (State.CALLED, *GOING):
                processes.step(process, Event.SERVES)
                self._outputs.hand_over()
            case "ended":
                self._outputs.ended(packet.body.get("keys"))
            case "counts":
                self._counts = packet.body
            case "moved":
                self.reopen(os.O_NOFOLLOW)
            case "reopened":
                self._say_reopened()

    def tell(self) -> None:
        """Tell the logger what has changed about the processes."""
        if (process := self._there()) is not None:
            self._outputs.tell(
                lambda kind, body, fds: self._processes.send(process, kind, body, fds)
            )

    def died(self) -> None:
        """The logger is gone."""
        self._outputs.take_back()
        for name in self._before:
            count = self._counts.get(name)
            self._before[name] += count if isinstance(count, int) else 0
        self._counts = {"held_back": 0, "lost": 0, "error": None}

    def _there(self) -> Process | None:
        table = self._processes.table.values()
        there = (p for p in table if p.row.seat == SEAT and p.row.state in UP)
        return next(there, None)

    def reopen(self, flags: int = 0) -> None:
        """Open the log file anew, for the logger and for the master."""
        file = logs.file()
        if file is None or file.path is None:
            return
        try:
            flags |= os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(file.path, flags, 0o640)
        except OSError as error:
            logs.error("log not reopened", file=file.path, why=error.strerror)
            return
        process = self._there()
        sent = process is not None and self._processes.send(process, "log", {}, [fd])
        logs.reopened(fd)
        if not sent:
            self._say_reopened()

    def _say_reopened(self) -> None:
        """Once the logger has it: else the words might go into the old file."""
        file = logs.file()
        logs.info("log reopened", file=None if file is None else file.path)

    def page(self) -> Json:
        """Return what `status` tells."""
        file = logs.file()
        found: Json = {"file": None if file is None else str(file.path)}
        found["formats"] = [target.format for target in logs.targets()]
        for name, before in self._before.items():
            count = self._counts.get(name)
            found[name] = before + (count if isinstance(count, int) else 0)
        return found | {"error": self._counts.get("error")}

    # The end

    @property
    def pids(self) -> list[int]:
        """The pid of the logger, if there is one."""
        rows = self._processes.rows()
        return [row.pid for row in rows if row.seat.role is Role.LOGGER and row.pid]

    def close(self) -> None:
        """All others are gone: have the logger write what there is, and end it."""
        self.tell()
        for process in list(self._processes.table.values()):
            self._processes.step(process, Event.STOP)
            self._processes.send(process, "drain", {})
            self._wait(process, LAST_SECONDS)
            if process.row.row in self._processes.table:
                logs.warning("killed at its deadline", pid=process.row.pid)
                self._processes.kill(process)
                self._wait(process, LAST_SECONDS)
        self._outputs.close()

    def _wait(self, process: Process, seconds: float) -> None:
        """Wait for its end, and reap it."""
        until = time.monotonic() + seconds
        waiter = select.poll()
        if process.pidfd >= 0:
            waiter.register(process.pidfd, select.POLLIN)
        with suppress(ProcessLookupError):
            while process.row.row in self._processes.table and time.monotonic() < until:
                waiter.poll(1000 * seconds if process.pidfd >= 0 else 10)
                self._processes.reap()
